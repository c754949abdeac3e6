"""Whether a world answers now: its engine and its database are asked, at most once a second."""

from __future__ import annotations

import asyncio
import time

from bot.world import World
from core.errors import ThumbtuneError
from core.generation import BASE

ANSWER_S = 5.0
"""Whatever takes longer than this to answer does not answer."""
KEEP_S = 1.0
"""How long one look is good for: a probe must not cost more the more often it comes."""


class Readiness:
    """One world's. All methods run on the event loop."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._lock = asyncio.Lock()
        self._looked = -KEEP_S
        self._fault = ""

    async def fault(self) -> str:
        """Return why the world does not answer; empty if it does."""
        async with self._lock:
            if time.monotonic() - self._looked >= KEEP_S:
                self._fault = await self._look()
                self._looked = time.monotonic()
            return self._fault

    async def _look(self) -> str:
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._world.database.run(lambda db: db.change_counter())
        except (ThumbtuneError, TimeoutError) as error:
            return f"the database does not answer: {str(error) or f'after {ANSWER_S:g} s'}"
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._world.engine.warm(BASE)
        except (ThumbtuneError, TimeoutError) as error:
            return f"the engine does not answer: {str(error) or f'after {ANSWER_S:g} s'}"
        return ""
