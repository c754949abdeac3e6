"""The double itself: one port on loopback with Discord's gateway, REST API and files.

Invariant: it runs on the loop that entered it and only there; `double_in_thread` gives it a loop of
its own. Closing it leaves no socket open. It never leaves loopback.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from aiohttp import web

from tests.discord_double import routes_directory, routes_interactions, routes_messages
from tests.discord_double.chat import Chat
from tests.discord_double.clock import Clock
from tests.discord_double.faults import AFTER, BEFORE, Delay, Fault, Seen
from tests.discord_double.gateway import Gateway, Heartbeat
from tests.discord_double.limits import Rule
from tests.discord_double.pressing import Pressing
from tests.discord_double.rest import PREFIX, Rest, as_json
from tests.discord_double.state import World

TOKEN = "double.token.for-tests"  # noqa: S105 -- a made-up secret is what tests are made of
LARGEST_BODY_BYTES = 32 * 1024 * 1024
ROUTES = routes_directory.ROUTES + routes_messages.ROUTES + routes_interactions.ROUTES


class Double(Pressing):
    """Discord on loopback, with the people who use it."""

    def __init__(
        self, *, token: str = TOKEN, flags: int = 0, heartbeat_interval_ms: int = 41_250
    ) -> None:
        self.clock = Clock()
        world = World(self.clock, token=token, flags=flags)
        gateway = Gateway(world, heartbeat_interval_ms=heartbeat_interval_ms)
        super().__init__(world, gateway, Chat(world, gateway))
        self.token = token
        self.api_url = ""
        self.gateway_url = ""
        self._rest = Rest(world, self.chat, ROUTES)
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Double:
        app = web.Application(client_max_size=LARGEST_BODY_BYTES)
        app.router.add_get("/", self.gateway.serve)
        app.router.add_get("/attachments/{channel}/{attachment}/{name}", self._file_bytes)
        app.router.add_get(f"{PREFIX}/gateway", self._gateway_url)
        app.router.add_get(f"{PREFIX}/gateway/bot", self._gateway_url)
        app.router.add_route("*", PREFIX + "/{path:.*}", self._rest.serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.5, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._name_urls(self._runner.addresses[0][1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self.gateway.drop()
        if self._runner is not None:
            await self._runner.cleanup()

    async def open_port(self, port: int) -> None:
        """Serve on this port as well, like a gateway that comes up late."""
        assert self._runner is not None
        await web.TCPSite(self._runner, "127.0.0.1", port).start()

    # -- limits and faults

    def limit(
        self,
        method: str,
        pattern: str,
        *,
        limit: int,
        per_s: float,
        scope: str = "user",
        hidden: bool = False,
    ) -> None:
        """Allow `limit` requests in `per_s` on the routes of `pattern`, by major parameter."""
        self._rest.limits.add(Rule(method, pattern, limit, per_s, scope, hidden))

    def limit_all(self, limit: int, *, per_s: float) -> None:
        """Set the global limit."""
        self._rest.limits.limit_all(limit, per_s=per_s)

    def lift_limits(self) -> None:
        """Forget all limits."""
        self._rest.limits.lift()

    def fail_next(
        self,
        method: str,
        pattern: str,
        *,
        status: int,
        times: int = 1,
        code: int = 0,
        message: str = "",
        retry_after_s: float = 1.0,
    ) -> None:
        """Answer the next `times` requests with `status`: 502 in HTML, 429 as a rate limit."""
        self._rest.faults.add(Fault(method, pattern, times, status, code, message, retry_after_s))

    def close_next(self, method: str, pattern: str, *, times: int = 1) -> None:
        """Cut the connection before the request takes effect."""
        self._rest.faults.add(Fault(method, pattern, times, closes=BEFORE))

    def lose_next_answer(self, method: str, pattern: str, *, times: int = 1) -> None:
        """Cut the connection after the request took effect."""
        self._rest.faults.add(Fault(method, pattern, times, closes=AFTER))

    def delay(self, seconds: float, *, method: str = "*", pattern: str) -> None:
        """Let requests on the routes of `pattern` wait."""
        self._rest.faults.slow_down(Delay(method, pattern, seconds))

    # -- the gateway

    def drop(self, *, shard: int | None = None) -> None:
        """Cut every gateway socket, or one shard's, without a word."""
        self.gateway.drop(shard=shard)

    # -- what was seen

    @property
    def requests(self) -> list[Seen]:
        """All REST requests so far, oldest first; status 0 is a cut connection."""
        return self._rest.seen

    @property
    def invalid(self) -> int:
        """How many 429s the bot has earned; those of a shared limit do not count."""
        return self._rest.limits.earned_429

    @property
    def heartbeats(self) -> list[Heartbeat]:
        """The heartbeats that came."""
        return self.gateway.heartbeats

    # -- the port

    def _name_urls(self, port: int) -> None:
        self.api_url = f"http://127.0.0.1:{port}{PREFIX}"
        self.gateway_url = self.gateway.url = f"ws://127.0.0.1:{port}/"
        self.world.files_url = f"http://127.0.0.1:{port}/attachments"

    async def _gateway_url(self, request: web.Request) -> web.Response:
        if self.gateway.without_shards and request.path.endswith("/bot"):
            return as_json({"message": "404: Not Found", "code": 0}, status=404)
        start = {
            "total": 1000,
            "remaining": self.gateway.starts_left,
            "reset_after": 14_400_000,
            "max_concurrency": 1,
        }
        shards = self.gateway.recommended_shards
        return as_json({"url": self.gateway_url, "shards": shards, "session_start_limit": start})

    async def _file_bytes(self, request: web.Request) -> web.Response:
        channel = self.world.channels.get(int(request.match_info["channel"]))
        for message in channel.messages.values() if channel is not None else ():
            for attachment in message.attachments:
                if str(attachment.id) == request.match_info["attachment"]:
                    return web.Response(body=attachment.data)
        return web.Response(status=404)


class Remote:
    """A double on a loop of its own, reached from another thread."""

    def __init__(self, double: Double, loop: asyncio.AbstractEventLoop) -> None:
        self.double = double
        self.api_url = double.api_url
        self.gateway_url = double.gateway_url
        self._loop = loop

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Run `function` on the double's loop and give what it, or its coroutine, returns."""

        async def run() -> Any:
            result = function(*args, **options)
            return await result if inspect.isawaitable(result) else result

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(timeout=60)


@contextmanager
def double_in_thread(**options: Any) -> Iterator[Remote]:
    """A double in a thread; `options` as for `Double`."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="discord-double", daemon=True)
    thread.start()
    double = Double(**options)
    try:
        asyncio.run_coroutine_threadsafe(double.__aenter__(), loop).result(timeout=10)
        yield Remote(double, loop)
    finally:
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(double.__aexit__(), loop).result(timeout=10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=10)
        loop.close()
