"""Feedback as JSON lines, in and out: signals gathered elsewhere, and the same shape back.

Invariant: a file is taken whole or not at all, and taking it twice changes nothing. What is
exported was consented to by everybody who wrote in it, since importing it elsewhere counts as the
right to train on it. The formats for TRL hold what a training run would take: merged, weighted,
without what may not train.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from core.errors import InvalidInput
from core.files import write_atomic
from core.generation import Message
from core.jobs import DemonstrationExample, Example, PairExample, VoteExample
from core.manifest import check_scope
from core.records import FeedbackRow, SignalKind, parse_time, utc_text
from storage.database import Database
from storage.imports import IMPORT_PLATFORM, ImportedSignal

DEFAULT_USER = "imported"
MAX_FAULTS_TOLD = 20
TRL_FORMS = ("kto", "dpo", "sft")
_PROGRESS_EVERY_LINES = 100
_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)
_KINDS: dict[str, SignalKind] = {
    "up": "up",
    "down": "down",
    "correction": "correction",
    "preferred": "preference",
}
_SIGNALS = {kind: signal for signal, kind in _KINDS.items()}

Progress = Callable[[int, int], None]
"""Told (lines done, lines in all)."""


def _clean(text: str) -> str:
    """Lone surrogates become U+FFFD and NUL goes: neither is text."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "")


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _only_text(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {
            key: _clean(value) if isinstance(value, str) else value for key, value in values.items()
        }


class _LineMessage(_Shape):
    role: Literal["system", "user", "assistant"]
    content: str


class _Line(_Shape):
    messages: Annotated[list[_LineMessage], Field(min_length=1)]
    reply: Annotated[str, Field(min_length=1)]
    signal: Literal["up", "down", "correction", "preferred"]
    correction: str | None = None
    rejected: str | None = None
    user: Annotated[str, Field(min_length=1)] = DEFAULT_USER
    scope: str | None = None
    at: str | None = None

    @model_validator(mode="after")
    def _belongs_together(self) -> _Line:
        if self.messages[-1].role != "user":
            raise ValueError(
                f"messages: the last is by {self.messages[-1].role!r}; expected 'user', whom the "
                "reply answers"
            )
        if not self.reply.strip():
            raise ValueError("reply: is blank; expected the text the signal is about")
        for signal, key in (("correction", "correction"), ("preferred", "rejected")):
            given = getattr(self, key)
            if self.signal == signal and not (given and given.strip()):
                raise ValueError(f"{key}: is missing; signal {signal!r} needs it")
            if self.signal != signal and given is not None:
                raise ValueError(f"{key}: has no meaning for signal {self.signal!r}; leave it out")
        if self.reply in (self.correction, self.rejected):
            raise ValueError("reply: is the same as the text it is set against")
        if self.scope is not None:
            check_scope(self.scope)
        if self.at is not None:
            _moment(self.at)
        return self


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What an import did: rows added or changed, rows already there, and bad lines left out."""

    added: int
    unchanged: int
    skipped: list[str]


def import_file(
    db: Database,
    path: Path,
    *,
    default_scope: str,
    skip_bad: bool = False,
    on_progress: Progress | None = None,
) -> ImportResult:
    """Store every signal of a JSON-lines file in one transaction.

    Of several signals of one user on one reply the last line wins, as with votes. Raises
    InvalidInput, with nothing stored, for a file that is not UTF-8 and, unless `skip_bad`, for one
    with bad lines; it names the first 20 with number and reason.
    """
    lines = _read_lines(path)
    signals, faults = _parse(lines, check_scope(default_scope))
    if faults and not skip_bad:
        raise InvalidInput(_refusal(path, faults))
    wanted = {_slot(signal): signal for signal in signals}
    added = 0
    with db.transaction():
        for done, signal in enumerate(wanted.values(), start=1):
            added += db.imports.add(signal)
            if on_progress and (done % _PROGRESS_EVERY_LINES == 0 or done == len(wanted)):
                on_progress(done, len(wanted))
        if added:
            db.events.add("operator", "feedback.imported", default_scope, added=added)
    return ImportResult(added=added, unchanged=len(signals) - added, skipped=faults)


def export_raw(db: Database, path: Path, *, scope: str | None = None) -> int:
    """Write the consented signals of a scope (None: all) in the import's shape; return how many.

    Left out are rows that may not train, and 🔁, which the shape does not know. The file appears
    whole.
    """
    rows = db.feedback.rows(scope, consented_only=True)
    users = {person.id: _user(person.platform, person.platform_id) for person in db.people.list()}
    lines = [
        json.dumps(_to_line(row, users[row.feedback.person_id]), ensure_ascii=False)
        for row in rows
        if row.feedback.kind in _SIGNALS
    ]
    write_atomic(path, "".join(f"{line}\n" for line in lines))
    return len(lines)


def export_trl(
    db: Database,
    path: Path,
    form: str,
    *,
    scope: str | None = None,
    person_share: float = 1.0,
) -> int:
    """Write what a training run would take as TRL's conversational rows; return how many.

    kto: `prompt`, `completion`, `label`; dpo: `prompt`, `chosen`, `rejected`; sft: `prompt`,
    `completion` of corrections and liked replies. The file appears whole.
    """
    from trainer.dataset import select_examples

    if form not in TRL_FORMS:
        raise InvalidInput(f"format {form!r}: expected one of {', '.join(TRL_FORMS)}")

    scopes = [scope] if scope else [row.name for row in db.scopes.list()]
    lines = [
        json.dumps(line, ensure_ascii=False)
        for name in scopes
        for example in select_examples(db.feedback.rows(name), person_share=person_share).examples
        if (line := _to_trl(example, form))
    ]
    write_atomic(path, "".join(f"{line}\n" for line in lines))
    return len(lines)


# -- private


def _to_trl(example: Example, form: str) -> dict[str, Any] | None:
    """Return the row, or None if the format cannot hold this kind of example."""
    prompt = [message.model_dump() for message in example.prompt]
    match form, example:
        case "kto", VoteExample():
            return {
                "prompt": prompt,
                "completion": _assistant(example.completion),
                "label": example.label,
            }
        case "dpo", PairExample():
            return {
                "prompt": prompt,
                "chosen": _assistant(example.chosen),
                "rejected": _assistant(example.rejected),
            }
        case "sft", DemonstrationExample() | VoteExample(label=True):
            return {"prompt": prompt, "completion": _assistant(example.completion)}
    return None


def _assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _read_lines(path: Path) -> list[str]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InvalidInput(
            f"{path}, line {line}: not UTF-8 (byte 0x{error.object[error.start]:02x}); "
            "save the file as UTF-8"
        ) from None
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read: {error.strerror}") from None
    return text.split("\n")  # not splitlines: U+2028 may stand in a message


def _parse(lines: list[str], default_scope: str) -> tuple[list[ImportedSignal], list[str]]:
    signals, faults = [], []
    for number, line in _numbered(lines):
        try:
            values = json.loads(line)
            if not isinstance(values, dict):
                raise ValueError("expected an object in braces")
            signals.append(_to_signal(_Line.model_validate(values), default_scope))
        except ValidationError as error:
            faults.append(f"line {number}: {_first_fault(error)}")
        except json.JSONDecodeError as error:
            faults.append(f"line {number}: not JSON: {error.msg} at column {error.colno}")
        except (ValueError, RecursionError) as error:
            faults.append(f"line {number}: not JSON: {error}")
    return signals, faults


def _numbered(lines: list[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, line


def _to_signal(line: _Line, default_scope: str) -> ImportedSignal:
    return ImportedSignal(
        scope=line.scope or default_scope,
        user=line.user,
        prompt=tuple(Message(message.role, message.content) for message in line.messages),
        reply=line.reply,
        kind=_KINDS[line.signal],
        text=line.correction,
        other=line.rejected,
        at=_moment(line.at) if line.at is not None else None,
    )


def _to_line(row: FeedbackRow, user: str) -> dict[str, Any]:
    feedback = row.feedback
    line: dict[str, Any] = {
        "messages": [{"role": message.role, "content": message.content} for message in row.prompt],
        "reply": row.reply_text,
        "signal": _SIGNALS[feedback.kind],
    }
    if feedback.kind == "correction":
        line["correction"] = feedback.text
    if feedback.kind == "preference":
        line["rejected"] = row.other_text
    return {**line, "user": user, "scope": row.scope, "at": feedback.at}


def _user(platform: str, platform_id: str) -> str:
    return platform_id if platform == IMPORT_PLATFORM else f"{platform}:{platform_id}"


def _slot(signal: ImportedSignal) -> tuple[object, ...]:
    """Signals with the same slot stand for one row, as the database has it."""
    kind = "vote" if signal.kind in ("up", "down") else signal.kind
    return signal.scope, signal.user, signal.prompt, signal.reply, kind


def _moment(text: str) -> str:
    try:
        moment = parse_time(text).astimezone(UTC)
    except (ValueError, OverflowError):
        moment = _NO_TIME
    if moment <= _NO_TIME:
        raise ValueError(f"at: {text!r} is no time; expected ISO 8601 such as 2026-01-31T12:00:00Z")
    return utc_text(moment)


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    where = ".".join(str(part) for part in fault["loc"])
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        message = f"no such key; known are {', '.join(_Line.model_fields)}"
    return f"{where}: {message}" if where else message


def _refusal(path: Path, faults: list[str]) -> str:
    told = "\n".join(f"  {fault}" for fault in faults[:MAX_FAULTS_TOLD])
    more = len(faults) - MAX_FAULTS_TOLD
    rest = f"\n  and {more} more" if more > 0 else ""
    noun = "lines" if len(faults) > 1 else "line"
    return (
        f"{path}: {len(faults)} bad {noun}, nothing was imported (--skip-bad leaves them out):\n"
        f"{told}{rest}"
    )
