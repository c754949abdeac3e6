"""Forgetting a person in everything Thumbtune keeps: the database and the files of training runs.

Finished runs keep no copy of anybody's words (bot.learning sees to that), so only a run that is
going on or was interrupted holds some: it is stopped, its directory goes, and what starts next does
without them.
"""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

from core.records import ACTIVE_RUN_STATES
from storage.aio import AsyncDatabase
from storage.database import Database


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was removed, by table; the adapters to be replaced by the next run; the runs stopped."""

    removed: dict[str, int]
    adapters: list[str]
    stopped_runs: list[str]


async def forget(
    database: AsyncDatabase, data_dir: Path, person_id: str, *, actor: str
) -> Forgotten:
    """Remove what a person wrote and voted, for good. Idempotent. Raises NotFound."""
    removed = await database.run(lambda db: db.people.forget(person_id, actor=actor))
    open_runs = await database.run(lambda db: db.runs.unfinished())
    for run in open_runs:
        if run.state in ACTIVE_RUN_STATES:
            await _cancel(database, run.id, actor)
        await asyncio.to_thread(shutil.rmtree, data_dir / run.directory, ignore_errors=True)
    flagged = await database.run(_flagged)
    return Forgotten(removed, flagged, [run.id for run in open_runs])


async def _cancel(database: AsyncDatabase, run_id: str, actor: str) -> None:
    await database.run(lambda db: db.runs.request_cancel(run_id, actor))


def _flagged(db: Database) -> list[str]:
    return [record.name for record in db.adapters.needing_retraining()]
