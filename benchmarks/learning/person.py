"""Membership after forgetting: does an adapter still know what somebody wrote who was forgotten?

A community votes, and one person corrects replies with texts that nobody else would write. Adapters
learn (a) with that person, (b) after they were forgotten, from the same database by the bot's own
service, and (c) from a database in which they never were. There are several pairs of (b) and (c):
the two of a pair share their seed, so that only the person can tell them apart; the pairs have
other seeds and splits, since no two runs are alike. Measured is the log-likelihood of the
corrections that (a) learnt from. A check is a directory with `check.json`; what is done in it is
never done again.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.learning.cells import make_cell
from benchmarks.learning.community import Signal, finish_reason, read_signals, said_at
from benchmarks.learning.pool import BaseReply
from bot.privacy import forget
from core.files import write_atomic
from core.generation import Message, Sampling
from core.jobs import ADAPTER, EVAL, TRAIN, DemonstrationExample, read_examples, read_spec
from core.records import FeedbackRow
from core.report import Interval
from core.settings import Settings
from storage.aio import AsyncDatabase
from storage.database import Database
from trainer.figures import BOOTSTRAP_DRAWS

CHECK, LIKELIHOODS = "check.json", "likelihoods.json"
TOLD, SCOPE = "p_told", "community"
_WITH, _NEVER = "with.db", "never.db"
_PERSON = "person.json"
_NAMES = ("Ottilie", "Bertram", "Wilma", "Casimir", "Rosalind", "Thaddeus", "Hedwig", "Lambert")
_PLACES = ("Quenbury", "Ostermoor", "Vellingen", "Harrow Sound", "Tannbach", "Little Merrow")
_BEASTS = ("geese", "hedgehogs", "llamas", "beetles", "owls", "goats", "newts", "ravens")
_ROOMS = ("the attic", "the cellar", "a blue shed", "the bakery", "an old tram", "the orchard")

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Check:
    """What a community said, and what the one person corrected; `base` as in `make_cell`."""

    said: list[Signal]
    corrected: list[Signal]
    runs: int
    seed: int
    base: tuple[str, str, str]
    recipe: str = "auto"


@dataclass(frozen=True, slots=True)
class Membership:
    """Mean log-likelihood a token of the corrections, nats, under the base and each adapter.

    `known` is (a) minus (c), `left` is (b) minus (c) of the same pair: their intervals resample the
    corrections and the runs. `words_left` counts corrections still found in (b)'s database file or
    job.
    """

    corrections: int
    runs: int
    base: float
    with_them: float
    after: float
    never: float
    known: Interval
    left: Interval
    words_left: int

    @property
    def forgotten(self) -> bool:
        """Say whether the check could have seen the person and does not: (a) stands out, (b) does
        not, and no word is left.
        """
        return self.known.low > 0 and self.left.low <= 0 and not self.words_left

    def as_dict(self) -> dict[str, Any]:
        """Return the figures and the verdict as one JSON object."""
        found = asdict(self) | {"forgotten": self.forgotten}
        return found | {"known": self.known.model_dump(), "left": self.left.model_dump()}


def corrections(replies: Sequence[BaseReply], seed: int) -> list[Signal]:
    """Return a correction of each reply by the one person: facts that are nowhere else."""
    chance = random.Random(f"told-{seed}")
    return [Signal(TOLD, "correction", reply, text=_fact(chance)) for reply in replies]


def plan_check(directory: Path, check: Check) -> None:
    """Write what a check starts from; nothing is done where it is there."""
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / CHECK).exists():
        write_atomic(directory / CHECK, json.dumps(asdict(check)))


def read_check(directory: Path) -> Check:
    """Read what a check started from."""
    row: dict[str, Any] = json.loads((directory / CHECK).read_text(encoding="utf-8"))
    signals = {name: read_signals(row[name]) for name in ("said", "corrected")}
    return Check(**{**row, **signals, "base": tuple(row["base"])})


def work_check(directory: Path, settings: Settings) -> None:
    """Train what is missing of (a), (b) and (c), then read the corrections with each."""
    check = read_check(directory)
    if not (directory / "with-0").exists():
        _fill(directory / _WITH, [*check.corrected, *check.said], first=0)
        _make(directory / "with-0", _rows(directory / _WITH), check, settings, 0)
    _train(directory / "with-0")
    _forget(directory)
    for number in range(check.runs):
        target = directory / f"after-{number}"
        if not target.exists():
            _make(target, _rows(directory / _WITH), check, settings, number)
        _train(target)
    for number in range(check.runs):
        target = directory / f"never-{number}"
        if not target.exists():
            _fill(directory / _NEVER, check.said, first=len(check.corrected))
            _make(target, _rows(directory / _NEVER), check, settings, number)
        _train(target)
    if not (directory / LIKELIHOODS).exists():
        write_atomic(directory / LIKELIHOODS, json.dumps(_likelihoods(directory, check)))


def measure_check(directory: Path) -> Membership:
    """Return the figures of a finished check."""
    check = read_check(directory)
    found: dict[str, list[float]] = json.loads(
        (directory / LIKELIHOODS).read_text(encoding="utf-8")
    )
    by = {
        kind: np.array([row for name, row in found.items() if name.startswith(kind)])
        for kind in ("base", "with", "after", "never")
    }
    return Membership(
        corrections=by["base"].shape[1],
        runs=check.runs,
        base=float(by["base"].mean()),
        with_them=float(by["with"].mean()),
        after=float(by["after"].mean()),
        never=float(by["never"].mean()),
        known=difference(by["with"], by["never"]),
        left=difference(by["after"] - by["never"], np.zeros_like(by["never"])),
        words_left=_words_left(directory, check),
    )


def difference(first: Floats, second: Floats) -> Interval:
    """Return mean(first) - mean(second) with its 95 % percentile bootstrap interval.

    # first (R1, n), second (R2, n): rows are runs, columns corrections; both are resampled, the
    corrections for both alike.
    """
    chance = np.random.default_rng(0)
    count = first.shape[1]
    draws = []
    for _ in range(BOOTSTRAP_DRAWS):
        columns = chance.integers(count, size=count)
        means = [
            of[chance.integers(len(of), size=len(of))][:, columns].mean() for of in (first, second)
        ]
        draws.append(means[0] - means[1])
    low, high = np.percentile(draws, [2.5, 97.5])
    value = float(first.mean() - second.mean())
    return Interval(value=value, low=float(low), high=float(high), n=count)


def _fact(chance: random.Random) -> str:
    name, place, beasts, room = map(chance.choice, (_NAMES, _PLACES, _BEASTS, _ROOMS))
    count = chance.randint(11, 99)
    return f"Ask {name} of {place}: there are {count} {beasts} in {room}, and each has a name."


def _fill(path: Path, signals: Sequence[Signal], *, first: int) -> None:
    """Make a database in which people said this, from the moment of number `first` on."""
    for leftover in path.parent.glob(f"{path.name}*"):
        leftover.unlink()
    with Database(path) as db, db.transaction():
        db.scopes.ensure(SCOPE)
        for number, signal in enumerate(signals, start=first):
            _store(db, signal, said_at(number))
        told = next((one for one in db.people.list() if one.platform_id == TOLD), None)
    if told is not None:
        write_atomic(path.parent / _PERSON, json.dumps(told.id))


def _store(db: Database, signal: Signal, at: str) -> None:
    person = db.people.ensure(
        "simulated", signal.member, display_name=signal.member, consent="given", at=at
    )
    reply = db.replies.start(
        conversation_id=db.conversations.open(SCOPE, person_id=person.id),
        scope=SCOPE,
        prompt=(Message("user", signal.reply.prompt),),
        adapter=signal.adapter,
        sampling=Sampling(),
        authors=(person.id,),
        at=at,
    )
    db.replies.finish(
        reply.id,
        text=signal.reply.text,
        seed=0,
        finish_reason=finish_reason(signal.reply),
        prompt_tokens=0,
        tokens=0,
        first_token_s=None,
        total_s=0.0,
    )
    if signal.kind == "correction":
        db.feedback.correct(reply.id, person.id, signal.text or "", at=at)
    elif signal.kind in ("up", "down"):
        db.feedback.vote(reply.id, person.id, "up" if signal.kind == "up" else "down", at=at)


def _rows(path: Path) -> list[FeedbackRow]:
    """Return what was said, by people's names: who is held out follows from the order of their
    identifiers, and those are drawn anew for each database.
    """
    with Database(path) as db:
        return [_by_name(row) for row in db.feedback.rows(SCOPE)]


def _by_name(row: FeedbackRow) -> FeedbackRow:
    by = replace(row.feedback, person_id=row.person_name)
    return replace(row, feedback=by, authors=(row.person_name,))


def _forget(directory: Path) -> None:
    """Forget the person by the service that `/privacy forget` calls; idempotent."""
    person: str = json.loads((directory / _PERSON).read_text(encoding="utf-8"))

    async def forgotten() -> None:
        async with AsyncDatabase(directory / _WITH) as database:
            await forget(database, directory, person, actor="operator")

    asyncio.run(forgotten())


def _make(
    target: Path, rows: Sequence[FeedbackRow], check: Check, settings: Settings, number: int
) -> None:
    """Write a job; its number changes the split and everything else that is drawn."""
    seed = check.seed + number
    training = settings.training.model_copy(update={"seed": seed})
    own = settings.model_copy(update={"training": training})
    make_cell(target, rows, [], own, base=check.base, seed=seed, recipe=check.recipe)


def _train(directory: Path) -> None:
    from trainer.job import run_job

    run_job(directory, evaluate=False)


def _learnt(directory: Path, check: Check) -> list[Signal]:
    """Return the corrections that (a) trained on; the others it held out."""
    learnt = {
        example.completion
        for example in read_examples(directory / "with-0" / TRAIN)
        if isinstance(example, DemonstrationExample)
    }
    return [signal for signal in check.corrected if signal.text in learnt]


def _likelihoods(directory: Path, check: Check) -> dict[str, list[float]]:
    """Return nats a token of each correction under the base and under every adapter."""
    from trainer.model import load_tokenizer, load_trained
    from trainer.scoring import Scored, Systems, Texts, reply_logprobs

    spec = read_spec(directory / "with-0")
    texts = Texts(load_tokenizer(spec), spec.max_length)
    rows = [
        Scored(
            texts.prompt([{"role": "user", "content": signal.reply.prompt}]),
            texts.reply(signal.text or "", complete=True),
        )
        for signal in _learnt(directory, check)
    ]

    def read(systems: Systems, system: Any) -> list[float]:
        said = reply_logprobs(systems, system, rows)
        return [nats / len(row.reply_ids) for nats, row in zip(said, rows, strict=True)]

    found: dict[str, list[float]] = {}
    for run in sorted(path.parent for path in directory.glob(f"*/{ADAPTER}")):
        systems = Systems(load_trained(spec, run / ADAPTER))
        found.setdefault("base", read(systems, "base"))
        found[run.name] = read(systems, "candidate")
    return found


def _words_left(directory: Path, check: Check) -> int:
    kept = [directory / _WITH]
    for number in range(check.runs):
        kept += [directory / f"after-{number}" / name for name in (TRAIN, EVAL)]
    content = b"\n".join(path.read_bytes() for path in kept)
    return sum((signal.text or "").encode() in content for signal in check.corrected)
