"""A reply being written, as the event loop sees it.

The model thread hands over pieces and the end by `deliver`; everything else happens on the event
loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from core.errors import ThumbtuneError
from core.generation import GenerationResult


class ReplyStream:
    """Iterate over text pieces, then read the result: a core.generation.GenerationStream."""

    def __init__(
        self, on_cancel: Callable[[], object], on_ahead: Callable[[], int] = lambda: 0
    ) -> None:
        self._on_cancel, self._on_ahead = on_cancel, on_ahead
        self.drawn = 0
        """Tokens drawn so far; while the reply is written some of their text may still be held
        back."""
        self._pieces: list[str] = []
        self._changed = asyncio.Event()
        self._end: asyncio.Future[GenerationResult] = asyncio.get_running_loop().create_future()

    async def __aiter__(self) -> AsyncIterator[str]:
        """Yield the pieces from the first one on; raises EngineStopped if the engine dies."""
        position = 0
        while True:
            while position < len(self._pieces):
                position += 1
                yield self._pieces[position - 1]
            if self._end.done():
                self._end.result()
                return
            self._changed.clear()
            await self._changed.wait()

    def cancel(self) -> None:
        """Stop soon; the result keeps the text so far. Idempotent."""
        if not self._end.done():
            self._on_cancel()

    def on_cancel(self, act: Callable[[], object]) -> None:
        """Say what cancels the reply, where that is known only once it is being written."""
        self._on_cancel = act

    def ahead(self) -> int:
        """Return how many replies are to begin before this one; 0 once it is its turn."""
        return 0 if self._pieces or self._end.done() else self._on_ahead()

    async def result(self) -> GenerationResult:
        """Wait for the end; raises EngineStopped if the engine died first."""
        return await asyncio.shield(self._end)

    # -- written by the engine, on the event loop

    def add(self, piece: str) -> None:
        """Append a piece of text; an empty one is none."""
        if not piece:
            return
        self._pieces.append(piece)
        self._changed.set()

    def finish(self, result: GenerationResult) -> None:
        """End the reply."""
        if not self._end.done():
            self._end.set_result(result)
        self._changed.set()

    def fail(self, error: ThumbtuneError) -> None:
        """End the reply because the engine is gone, or refuses it late."""
        if not self._end.done():
            self._end.set_exception(error)
            self._end.exception()  # a stream nobody awaits any more is no news for the log
        self._changed.set()
