"""One socket of the gateway, and the session that it serves.

Invariant: frames leave in the order in which they were queued, through one compression stream for
the socket's whole life. Knows no operations and no events.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web

from tests.discord_double.records import Json


@dataclass(slots=True, eq=False)
class Session:
    """An identified client: its intents, its shard (number, of how many), and everything it was
    ever sent.
    """

    id: str
    intents: int
    shard: tuple[int, int] = (0, 1)
    log: list[Json] = field(default_factory=list)
    line: Line | None = None

    def hears(self, guild_id: int) -> bool:
        """Whether a server's events (0: those of direct messages) are sent to this shard."""
        number, count = self.shard
        return (guild_id >> 22) % count == number


class Line:
    """One socket: frames go out in order, compressed as its client asked."""

    def __init__(self, request: web.Request, ws: web.WebSocketResponse) -> None:
        self.request = request
        self.ws = ws
        self.session: Session | None = None
        self._compress = _transport_compression(request.query.get("compress", ""))
        self._queue: asyncio.Queue[Json | int] = asyncio.Queue()

    def send(self, frame: Json) -> None:
        """Queue `frame`."""
        self._queue.put_nowait(frame)

    def close(self, code: int) -> None:
        """Close with `code` when all that is queued has gone out."""
        self._queue.put_nowait(code)

    def cut(self) -> None:
        """Drop the connection with no closing frame."""
        if self.request.transport is not None:
            self.request.transport.abort()

    async def write(self) -> None:
        """Send what is queued until the socket is gone."""
        while not self.ws.closed:
            frame = await self._queue.get()
            try:
                if isinstance(frame, int):
                    await self.ws.close(code=frame)
                elif self._compress is None:
                    await self.ws.send_json(frame)
                else:
                    await self.ws.send_bytes(self._compress(json.dumps(frame).encode()))
            except ConnectionError:
                return


def _transport_compression(asked: str) -> Callable[[bytes], bytes] | None:
    """One stream for a socket's life; every frame ends where the client can decode it."""
    if asked == "zlib-stream":
        deflate = zlib.compressobj()
        return lambda data: deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH)
    if asked == "zstd-stream":
        import zstandard

        stream = zstandard.ZstdCompressor().compressobj()
        block = zstandard.COMPRESSOBJ_FLUSH_BLOCK
        return lambda data: stream.compress(data) + stream.flush(block)
    return None
