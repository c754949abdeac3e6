"""Server-sent events: how a page follows what goes on, from wherever it joins.

Invariant: a stream begins with how things stand, so one that broke off and one that was never there
see the same; it ends when the console closes, and a browser that went away costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from starlette.responses import StreamingResponse

SILENCE_S = 15.0
"""After so long without an event a comment is sent, so that nothing between takes it for dead."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its name and the HTML that goes into the page."""

    name: str
    html: str

    def encoded(self) -> bytes:
        """Return the event as it goes over the wire."""
        lines = self.html.replace("\r", "").split("\n")
        data = "".join(f"data: {line}\n" for line in lines)
        return f"event: {self.name}\n{data}\n".encode()


def streamed(events: AsyncIterator[Event], closing: asyncio.Event) -> StreamingResponse:
    """Answer with events until they end or the console closes."""
    headers = {"x-accel-buffering": "no"}
    return StreamingResponse(
        _lines(events, closing), media_type="text/event-stream", headers=headers
    )


async def _lines(events: AsyncIterator[Event], closing: asyncio.Event) -> AsyncIterator[bytes]:
    """Yield encoded events, and a comment in each long silence."""
    stop = asyncio.ensure_future(closing.wait())
    coming: asyncio.Future[Event] | None = None
    try:
        while not stop.done():
            coming = coming or asyncio.ensure_future(anext(events))
            either: set[asyncio.Future[Any]] = {coming, stop}
            await asyncio.wait(either, timeout=SILENCE_S, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                yield b": still here\n\n"
                continue
            done, coming = coming, None
            try:
                event = done.result()
            except StopAsyncIteration:
                return
            yield event.encoded()
    finally:
        for task in (stop, coming):
            if task:
                task.cancel()
        await asyncio.gather(*(task for task in (stop, coming) if task), return_exceptions=True)
