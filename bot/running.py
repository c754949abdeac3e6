"""What a long-running bot does beside chatting: recover, share out cores, forget old talk.

At start, runs of dead processes go on, and those that were left on another machine are taken up;
while any process trains on this one, a model whose threads cannot share
cores gives some of its own up (two OpenMP pools on one core run 20 times slower); once an hour,
conversations past their retention are deleted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

from bot.world import World
from core.errors import RunElsewhere, ThumbtuneError
from core.generation import Engine
from core.records import Run, utc_text
from core.settings import Settings

log = logging.getLogger(__name__)
SHARE_INTERVAL_S = 1.0
EXPIRE_INTERVAL_S = 3600.0
TAKE_UP_INTERVAL_S = 600.0
"""A machine that was away is asked again this often for the runs that were left on it."""


class Housekeeping:
    """Background tasks of one running world; every one is referenced and cancelled on close."""

    def __init__(self, world: World, say: Callable[[str], None]) -> None:
        self._world = world
        self._say = say
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Resume orphaned runs and begin the periodic work."""
        await self._world.learning.tidy()
        for run in await self._world.learning.orphans():
            self._say(f"{run.id} was cut off while {run.state}; going on with it")
            self._spawn(self._resume(run), f"resume-{run.id}")
        self._spawn(self._take_up(), "take-up")
        self._spawn(self._share_cores(), "share-cores")
        self._spawn(self._expire(), "expire")

    async def close(self) -> None:
        """Cancel everything and wait for it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))

    async def _resume(self, run: Run) -> None:
        try:
            outcome = await self._world.learning.resume(run.id, actor="restart")
            self._say(f"{run.id}: {outcome.run.state}: {outcome.run.detail}")
        except RunElsewhere as error:
            self._say(f"{run.id} was left: {error}")
        except ThumbtuneError as error:
            self._say(f"{run.id} failed: {error}")

    async def _take_up(self) -> None:
        while True:
            for run in await self._world.learning.left_elsewhere():
                self._say(f"{run.id} was left on another machine; taking it up")
                self._spawn(self._resume(run), f"resume-{run.id}")
            await asyncio.sleep(TAKE_UP_INTERVAL_S)

    async def _share_cores(self) -> None:
        settings, engine = self._world.settings, self._world.engine
        current = settings.serving_threads
        while True:
            training = await self._world.database.run(lambda db: bool(db.runs.active()))
            wanted = (
                threads_beside_training(settings, engine) if training else settings.serving_threads
            )
            if wanted != current:
                await engine.set_threads(wanted)
                current = wanted
            await asyncio.sleep(SHARE_INTERVAL_S)

    async def _expire(self) -> None:
        days = self._world.settings.privacy.retention_days
        while days:
            before = utc_text(datetime.now(UTC) - timedelta(days=days))
            removed = await self._world.database.run(lambda db: db.conversations.expire(before))  # noqa: B023
            if removed:
                log.info("%d conversations older than %d days deleted", removed, days)
            await asyncio.sleep(EXPIRE_INTERVAL_S)


def threads_beside_training(settings: Settings, engine: Engine) -> int:
    """Return the engine's CPU threads while a run goes on: all of them where it shares cores well,
    since the run stands back, else those that the run leaves free.
    """
    if engine.shares_cores:
        return settings.serving_threads
    return settings.serving_threads_while_training
