"""Between database rows and the frozen records of `core.records`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from sys import intern
from typing import Any

from core.generation import Message, Sampling
from core.records import (
    AdapterRecord,
    Event,
    Feedback,
    FeedbackRow,
    Match,
    Person,
    Reply,
    Run,
    Scope,
    Trial,
    Turn,
)
from storage.connection import Row


def dump(value: Any) -> str:
    """Write a value as compact JSON text."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def dump_messages(messages: tuple[Message, ...]) -> str:
    """Write messages as JSON: a list of [role, content]."""
    return dump([[message.role, message.content] for message in messages])


def dump_sampling(sampling: Sampling) -> str:
    """Write sampling parameters as JSON."""
    return dump(asdict(sampling))


def under(column: str) -> str:
    """Return SQL: is the key in `column` the key :prefix, or one within it (`discord/1/2`)?"""
    return f"({column} = :prefix OR substr({column}, 1, length(:prefix) + 1) = :prefix || '/')"


def to_scope(row: Row) -> Scope:
    """Read a row of `scopes`."""
    return Scope(
        name=row["name"],
        persona=row["persona"],
        training_enabled=bool(row["training_enabled"]),
        live=row["live"],
        previous=row["previous"],
        canary=row["canary"],
        live_since=row["live_since"],
    )


def to_person(row: Row) -> Person:
    """Read a row of `people`."""
    names = Person.__slots__
    return Person(**{name: row[name] for name in names})


def to_turn(row: Row) -> Turn:
    """Read a row of `turns`."""
    return Turn(**row)


def to_reply(row: Row) -> Reply:
    """Read a row of `replies`."""
    return Reply(
        id=row["id"],
        conversation_id=row["conversation_id"],
        scope=row["scope"],
        prompt=to_messages(row["prompt"]),
        text=row["text"],
        adapter=row["adapter"],
        sampling=_to_sampling(row["sampling"]),
        state=row["state"],
        seed=row["seed"],
        finish_reason=row["finish_reason"],
        prompt_tokens=row["prompt_tokens"],
        tokens=row["tokens"],
        first_token_s=row["first_token_s"],
        total_s=row["total_s"],
        replaces=row["replaces"],
        kept=bool(row["kept"]),
        at=row["at"],
        origin=row["origin"],
    )


def to_feedback(row: Row) -> Feedback:
    """Read a row of `feedback`."""
    return Feedback(
        id=row["id"],
        reply_id=row["reply_id"],
        person_id=intern(row["person_id"]),
        kind=row["kind"],
        text=row["text"],
        other_reply_id=row["other_reply_id"],
        reasons=tuple(json.loads(row["reasons"])),
        dropped=bool(row["dropped"]),
        at=row["at"],
        reviewed_at=row["reviewed_at"],
    )


def to_feedback_row(row: Row) -> FeedbackRow:
    """Read a row of the join that training sees (see storage.signals).

    What many rows share, such as a person's id, is held once.
    """
    return FeedbackRow(
        feedback=to_feedback(row),
        scope=intern(row["scope"]),
        platform=intern(row["platform"]),
        person_name=row["person_name"],
        prompt=to_messages(row["prompt"]),
        reply_text=row["reply_text"],
        reply_adapter=intern(row["reply_adapter"]),
        finish_reason=row["finish_reason"],
        other_text=row["other_text"],
        authors=tuple(map(intern, row["authors"].split(","))) if row["authors"] else (),
        all_consented=bool(row["all_consented"]),
        other_finish_reason=row["other_finish_reason"],
        other_id=row["other_id"],
    )


def to_run(row: Row) -> Run:
    """Read a row of `runs`."""
    return Run(
        id=row["id"],
        scope=row["scope"],
        state=row["state"],
        recipe=row["recipe"],
        adapter=row["adapter"],
        directory=row["directory"],
        counts=json.loads(row["counts"]),
        dataset_sha256=row["dataset_sha256"],
        report=json.loads(row["report"]) if row["report"] else None,
        detail=row["detail"],
        owner_pid=row["owner_pid"],
        cancel_requested=bool(row["cancel_requested"]),
        force=bool(row["force"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def to_adapter(row: Row) -> AdapterRecord:
    """Read a row of `adapters`."""
    names = AdapterRecord.__slots__
    return AdapterRecord(**{name: row[name] for name in names})


def to_trial(row: Row) -> Trial:
    """Read a row of `trials`."""
    return Trial(**row)


def to_match(row: Row) -> Match:
    """Read a row of `matches`."""
    return Match(**{**row, "candidate_first": bool(row["candidate_first"])})


def to_event(row: Row) -> Event:
    """Read a row of `events`."""
    return Event(**{**row, "detail": json.loads(row["detail"])})


def to_messages(text: str) -> tuple[Message, ...]:
    """Read messages written by `dump_messages`."""
    return tuple(Message(role, content) for role, content in json.loads(text))


def _to_sampling(text: str) -> Sampling:
    values = json.loads(text)
    return Sampling(**{**values, "stop": tuple(values["stop"])})


def content_sha256(scope: str, prompt: tuple[Message, ...], text: str) -> str:
    """Return the hash by which an imported reply finds the one that is already there."""
    content = dump([scope, dump_messages(prompt), text]).encode("utf-8", "replace")
    return hashlib.sha256(content).hexdigest()
