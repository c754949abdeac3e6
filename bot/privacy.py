"""A person's say over what Thumbtune keeps: consent, a copy of it, taking it back, being forgotten.

Finished runs keep no copy of anybody's words (bot.learning sees to that), so only a run that is
going on or was interrupted holds some: it is stopped, its directory goes, and what starts next does
without them. Whatever keeps words in memory is handed in as `memories`; the command line has none.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from core.errors import Conflict
from core.records import ACTIVE_RUN_STATES, Consent, Person, Run
from storage.aio import AsyncDatabase
from storage.database import Database


class Memory(Protocol):
    """Something that holds what people wrote in memory, and can let go of one of them."""

    def forget_person(self, person_id: str, /) -> object:
        """Drop everything in which this person wrote."""
        ...


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was removed, by table; the adapters to be replaced by the next run; the runs stopped."""

    removed: dict[str, int]
    adapters: list[str]
    stopped_runs: list[str]


@dataclass(frozen=True, slots=True)
class Holding:
    """How much is kept of a person. `replies` counts those stored with what they answered.

    `votes` are thumbs, choices and tries asked for; `adapters` those that learnt from the person.
    """

    consent: Consent
    replies: int
    votes: int
    corrections: int
    adapters: tuple[str, ...]


async def opt_in(database: AsyncDatabase, person_id: str, *, from_message: int = 0) -> Person:
    """Store that a person agrees; what they said before `from_message` is not taken.

    Raises NotFound.
    """
    return await database.run(
        lambda db: db.people.set_consent(
            person_id, "given", actor=person_id, from_message=from_message
        )
    )


async def opt_out(
    database: AsyncDatabase,
    data_dir: Path,
    person_id: str,
    *,
    actor: str,
    memories: Iterable[Memory] = (),
) -> Forgotten:
    """Take a person's consent back and remove the words kept under it. Idempotent.

    Votes stay, without the words they were about. Raises NotFound.
    """
    _drop(memories, person_id)
    removed = await database.run(lambda db: db.people.opt_out(person_id, actor=actor))
    stopped = await stop_runs(database, data_dir, _learning_from(person_id), actor)
    _drop(memories, person_id)  # what was being written meanwhile
    return Forgotten(removed, await _flagged(database, person_id), stopped)


async def forget(
    database: AsyncDatabase,
    data_dir: Path,
    person_id: str,
    *,
    actor: str,
    memories: Iterable[Memory] = (),
) -> Forgotten:
    """Remove what a person wrote and voted, for good. Idempotent. Raises NotFound."""
    _drop(memories, person_id)
    removed = await database.run(lambda db: db.people.forget(person_id, actor=actor))
    stopped = await stop_runs(database, data_dir, lambda db: db.runs.unfinished(), actor)
    _drop(memories, person_id)
    return Forgotten(removed, await _flagged(database, person_id), stopped)


async def export_person(database: AsyncDatabase, person_id: str) -> bytes:
    """Return everything held about a person as readable JSON. Raises NotFound."""
    held = await database.run(lambda db: db.people.export(person_id))
    return (json.dumps(held, ensure_ascii=False, indent=2) + "\n").encode()


async def holding(database: AsyncDatabase, person_id: str) -> Holding:
    """Return how much is kept of a person. Raises NotFound."""
    return await database.run(lambda db: _holding(db, person_id))


def _holding(db: Database, person_id: str) -> Holding:
    held = db.people.export(person_id)
    feedback = held["feedback"]
    corrections = sum(row["kind"] == "correction" for row in feedback)
    return Holding(
        consent=db.people.get(person_id).consent,
        replies=sum(bool(row["kept"]) for row in held["replies"]),
        votes=len(feedback) - corrections,
        corrections=corrections,
        adapters=tuple(row["name"] for row in held["adapters"]),
    )


def _drop(memories: Iterable[Memory], person_id: str) -> None:
    for memory in memories:
        memory.forget_person(person_id)


def _learning_from(person_id: str) -> Callable[[Database], list[Run]]:
    """Return what finds the unfinished runs that hold, or may just be copying, a person's words."""

    def found(db: Database) -> list[Run]:
        theirs = {run.id for run in db.runs.of_person(person_id)}
        runs = db.runs.unfinished()
        return [run for run in runs if run.id in theirs or run.state == "snapshot"]

    return found


async def stop_runs(
    database: AsyncDatabase, data_dir: Path, which: Callable[[Database], Sequence[Run]], actor: str
) -> list[str]:
    """Stop these runs and delete their copies of people's words; return their ids."""
    runs = await database.run(which)
    for run in runs:
        if run.state in ACTIVE_RUN_STATES:
            await _cancel(database, run.id, actor)
        await asyncio.to_thread(shutil.rmtree, data_dir / run.directory, ignore_errors=True)
    return [run.id for run in runs]


async def _cancel(database: AsyncDatabase, run_id: str, actor: str) -> None:
    with contextlib.suppress(Conflict):  # it has ended meanwhile
        await database.run(lambda db: db.runs.request_cancel(run_id, actor))


async def _flagged(database: AsyncDatabase, person_id: str) -> list[str]:
    """Return the adapters that learnt from a person and wait for a run without them."""
    held = await database.run(lambda db: db.people.export(person_id))
    return [row["name"] for row in held["adapters"] if row["needs_retraining"]]
