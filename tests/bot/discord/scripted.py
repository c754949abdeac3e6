"""An engine without a model, in the place of one on another machine: it streams made-up words.

It stands for what a remote engine is to the bot: the same protocol, no torch in this process. Used
where the load or the faults are what is tested, not the text.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from bot.world import INTERRUPTED, World, assemble, open_database
from core.basemodel import BaseModel
from core.errors import EngineBusy, EngineStopped
from core.generation import EngineStats, GenerationRequest, GenerationResult
from core.settings import Settings

TEXT = (
    "every answer here is made of the same plain words in the same plain order so that a test can "
    "say exactly what must be on the page"
)
WORDS = TEXT.split()


class ScriptedStream:
    """Words, one after another, at a given pace."""

    def __init__(
        self, request: GenerationRequest, words: int, pace_s: float, turn: asyncio.Event
    ) -> None:
        self._request = request
        self._turn = turn
        self._words, self._pace_s = words, pace_s
        self._cancelled = False
        self.broken = False
        self.line = 0
        self._end: asyncio.Future[GenerationResult] = asyncio.get_running_loop().create_future()

    async def __aiter__(self) -> AsyncIterator[str]:
        """Yield the words; the end is set as the last one goes out."""
        text = ""
        for number, word in enumerate(itertools.islice(itertools.cycle(WORDS), self._words)):
            if self._cancelled:
                break
            if self.broken:
                self._end.set_exception(EngineStopped("the engine was stopped by the test"))
                self._end.exception()
                raise EngineStopped("the engine was stopped by the test")
            await self._turn.wait()
            await asyncio.sleep(self._pace_s)
            piece = word if number == 0 else f" {word}"
            text += piece
            yield piece
        self._end.set_result(
            GenerationResult(
                text=text,
                token_ids=tuple(range(len(text.split()))),
                adapter=self._request.adapter,
                finish_reason="cancelled" if self._cancelled else "stop",
                seed=0,
                prompt_tokens=1,
                dropped_messages=0,
                first_token_s=self._pace_s,
                total_s=self._pace_s * self._words,
            )
        )

    def ahead(self) -> int:
        """Say what the test wants people to see while they wait."""
        return self.line

    def cancel(self) -> None:
        """Stop before the next word."""
        self._cancelled = True

    async def result(self) -> GenerationResult:
        """Wait for the end."""
        return await asyncio.shield(self._end)


class ScriptedEngine:
    """Implements core.generation.Engine; `words` and `pace_s` may be changed at any time.

    While `turn` is cleared nobody's turn comes, and new replies say that `line` are before them.
    """

    def __init__(self, words: int = 30, pace_s: float = 0.01, max_active: int = 10_000) -> None:
        self.words, self.pace_s, self.max_active = words, pace_s, max_active
        self.streams: list[ScriptedStream] = []
        self.line = 0
        self.turn = asyncio.Event()
        self.turn.set()
        self.refusing: Exception | None = None

    async def start(self) -> None:
        """Be ready."""

    async def close(self) -> None:
        """End what runs."""
        for stream in self.streams:
            stream.cancel()

    def generate(self, request: GenerationRequest) -> ScriptedStream:
        """Begin a stream of words."""
        if self.refusing:
            raise self.refusing
        running = [stream for stream in self.streams if not stream._end.done()]
        if len(running) >= self.max_active:
            raise EngineBusy(len(running), self.max_active)
        stream = ScriptedStream(request, self.words, self.pace_s, self.turn)
        stream.line = self.line
        self.streams = [*running, stream]
        return stream

    async def load(self, name: str, directory: Path) -> None:
        """Nothing to load."""

    async def unload(self, name: str) -> None:
        """Nothing to unload."""

    async def warm(self, name: str) -> None:
        """Nothing to warm."""

    shares_cores = True

    async def set_threads(self, threads: int) -> None:
        """No threads."""

    def stats(self) -> EngineStats:
        """Count what runs."""
        running = sum(not stream._end.done() for stream in self.streams)
        return EngineStats(running, 0, (), 0, 0)


@asynccontextmanager
async def scripted_world(settings: Settings, engine: ScriptedEngine) -> AsyncIterator[World]:
    """Open a world around a scripted engine: real database, real services."""
    base = BaseModel(name="scripted", path=settings.data_dir, sha256="0" * 64)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings))
        await database.run(lambda db: db.replies.fail_pending(INTERRUPTED))
        yield await assemble(stack, settings, database, base=base, engine=engine)
