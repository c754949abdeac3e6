"""Training runs begun from the console: each a referenced task, stopped when the console closes.

Invariant: one at a time, which the database holds. A run that is stopped by closing is interrupted
and can go on. What a run is and does is bot.learning's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from bot.driver import Outcome
from bot.world import World
from core.errors import ThumbtuneError
from core.records import Run

log = logging.getLogger(__name__)
_LOOK_S = 0.05


class TrainingDesk:
    """The runs of one scope that this console began. All methods run on the event loop."""

    def __init__(self, world: World, scope: str) -> None:
        self._world = world
        self._scope = scope
        self._tasks: set[asyncio.Task[None]] = set()

    async def begin(self, recipe: str | None, *, actor: str) -> Run:
        """Begin a run and return it once it has its row. Raises what keeps it from beginning."""
        before = await self._newest()
        learning = self._world.learning.retrain(self._scope, actor=actor, recipe=recipe)
        task = self._spawn(learning)
        while True:
            newest = await self._newest()
            if newest and (before is None or newest.id != before.id):
                return newest
            if task.done():
                task.result()
            await asyncio.sleep(_LOOK_S)

    async def resume(self, run_id: str, *, actor: str) -> None:
        """Go on with an interrupted run. Raises what keeps it from going on."""
        task = self._spawn(self._world.learning.resume(run_id, actor=actor))
        while not task.done() and (await self._get(run_id)).state == "interrupted":
            await asyncio.sleep(_LOOK_S)
        if task.done():
            task.result()

    async def close(self) -> None:
        """Stop what goes on and wait for it. Idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, Outcome]) -> asyncio.Task[None]:
        task = asyncio.create_task(self._drive(work), name=f"console-run-{self._scope}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def _drive(self, work: Coroutine[Any, Any, Outcome]) -> None:
        await work
        await self._world.registry.sync()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, ThumbtuneError | OSError):  # its row says so too
            log.warning("a run begun in the console failed: %s", error)
        elif error is not None:
            log.error("a run begun in the console broke", exc_info=error)

    async def _newest(self) -> Run | None:
        scope = self._scope
        runs = await self._world.database.run(lambda db: db.runs.list(scope, limit=1))
        return runs[0] if runs else None

    async def _get(self, run_id: str) -> Run:
        return await self._world.database.run(lambda db: db.runs.get(run_id))
