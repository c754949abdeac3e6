"""The choices of one completion, written side by side, as one sequence of pieces.

Invariant: closing frees every place in the engine that the choices still hold; a client that hangs
up is noticed while the model is still writing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from starlette.types import Receive

from bot.api.errors import ApiError
from bot.api.state import ApiState
from bot.chat import ReplyInProgress
from bot.memory import Ask
from core.errors import ThumbtuneError
from core.records import Reply

Piece = tuple[int, str | Reply | ThumbtuneError]
"""Which choice, and its next text, its end, or why there is none."""
_SEEDS = 1 << 64


class Writing:
    """Replies in progress; `replies` are their rows as they began. Close it, however it ends."""

    def __init__(self, running: Sequence[ReplyInProgress], receive: Receive) -> None:
        self._running = tuple(running)
        self._watcher = asyncio.create_task(
            _cancel_when_gone(receive, self._running), name="client-watcher"
        )
        self.replies = tuple(one.reply for one in running)

    @classmethod
    async def begin(cls, state: ApiState, ask: Ask, choices: int, receive: Receive) -> Writing:
        """Begin so many replies to a question; choice i has the seed plus i.

        Raises EngineBusy if there is no room for all of them.
        """
        running: list[ReplyInProgress] = []
        try:
            for index in range(choices):
                one = await _begin(state, _nth(ask, index))
                running.append(one)
        except BaseException:
            for one in running:
                one.cancel()
            raise
        return cls(running, receive)

    async def close(self) -> None:
        """Stop what is still being written and stop watching the client. Idempotent."""
        for one in self._running:
            one.cancel()
        self._watcher.cancel()
        await asyncio.gather(self._watcher, return_exceptions=True)

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """Yield what comes, from whichever choice; the last of each is a reply or an error."""
        arrived: asyncio.Queue[Piece] = asyncio.Queue()
        tasks = [
            asyncio.create_task(_follow(index, one, arrived), name=f"choice-{one.reply.id}")
            for index, one in enumerate(self._running)
        ]
        try:
            left = len(tasks)
            while left:
                index, piece = await arrived.get()
                left -= not isinstance(piece, str)
                yield index, piece
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def finished(self) -> list[Reply]:
        """Wait for all choices. Raises what ended one of them."""
        return [await one.finished() for one in self._running]


async def _begin(state: ApiState, ask: Ask) -> ReplyInProgress:
    if state.closing:
        raise ApiError(503, "the service is stopping", kind="server_error")
    one = await state.world.chat.write(ask)
    state.follow(one)
    return one


def _nth(ask: Ask, index: int) -> Ask:
    sampling = ask.sampling
    if sampling is None or sampling.seed is None:
        return ask
    half = _SEEDS // 2
    seed = (sampling.seed + index + half) % _SEEDS - half
    return replace(ask, sampling=replace(sampling, seed=seed))


async def _follow(index: int, one: ReplyInProgress, arrived: asyncio.Queue[Piece]) -> None:
    try:
        async for text in one:
            arrived.put_nowait((index, text))
        arrived.put_nowait((index, await one.finished()))
    except ThumbtuneError as error:
        arrived.put_nowait((index, error))


async def _cancel_when_gone(receive: Receive, running: Sequence[ReplyInProgress]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    for one in running:
        one.cancel()
