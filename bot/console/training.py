"""Training runs begun from the console: each a referenced task, stopped when the console closes.

Invariant: one at a time, which the database holds. A run that is stopped by closing is interrupted
and goes on at the next start. What a run is and does is bot.learning's.
"""

from __future__ import annotations

import asyncio
import logging

from bot.learning import LearningService
from bot.registry import AdapterRegistry
from core.errors import ThumbtuneError

log = logging.getLogger(__name__)


class TrainingDesk:
    """The runs of one scope that this console began. All methods run on the event loop."""

    def __init__(self, learning: LearningService, registry: AdapterRegistry, scope: str) -> None:
        self._learning = learning
        self._registry = registry
        self._scope = scope
        self._task: asyncio.Task[None] | None = None
        self.failure = ""

    @property
    def running(self) -> bool:
        """Say whether a run begun here goes on."""
        return self._task is not None and not self._task.done()

    def begin(self, recipe: str | None, *, actor: str) -> None:
        """Begin a run and return at once; how it goes is in its row and its progress."""
        self.failure = ""
        self._task = asyncio.create_task(self._learn(recipe, actor), name="console-retrain")

    async def close(self) -> None:
        """Stop what goes on and wait for it. Idempotent."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _learn(self, recipe: str | None, actor: str) -> None:
        try:
            await self._learning.retrain(self._scope, actor=actor, recipe=recipe)
            await self._registry.sync()
        except (ThumbtuneError, OSError) as error:
            self.failure = str(error)
            log.warning("a run begun in the console failed: %s", error)
