"""Edits are paced by the server's answers: a real aiohttp server sends the headers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from bot.discord import pace as pace_module
from bot.discord.pace import EditPace, channel_key, webhook_key

MESSAGE = "/api/v10/channels/42/messages/7"


class Time:
    """A clock that only sleep moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


class Server:
    """Answers every request with the status and headers set last."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        self.http = TestServer(application)

    async def _answer(self, request: web.Request) -> web.Response:
        return web.json_response({}, status=self.status, headers=self.headers)

    def allow(self, remaining: int, reset_after_s: float) -> None:
        """Answer from now on with this much left."""
        self.headers = {
            "X-RateLimit-Remaining": str(remaining),
            "X-RateLimit-Reset-After": str(reset_after_s),
        }


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    """A server that listens."""
    running = Server()
    await running.http.start_server()
    yield running
    await running.http.close()


async def request(
    server: Server, pace: EditPace, path: str = MESSAGE, method: str = "PATCH"
) -> None:
    """One request, traced."""
    async with (
        aiohttp.ClientSession(trace_configs=[pace.trace_config()]) as session,
        session.request(method, server.http.make_url(path)),
    ):
        pass


async def test_nothing_known_waits_for_nothing() -> None:
    """The first edit goes out at once."""
    time = Time()
    await EditPace(clock=time, sleep=time.sleep).ready(channel_key(42))
    assert time.slept == []


async def test_what_remains_is_spread_over_the_time_until_the_reset(server: Server) -> None:
    """Four left in five seconds: the next edit is due in 5 / (4 + 1) = 1 s."""
    time = Time()
    pace = EditPace(clock=time, sleep=time.sleep)
    server.allow(4, 5.0)
    await request(server, pace)
    await pace.ready(channel_key(42))
    assert time.slept == [1.0]
    await pace.ready(channel_key(43))
    assert time.slept == [1.0]


async def test_a_whole_window_is_edited_smoothly(server: Server) -> None:
    """Five edits of a five-second window come a second apart, none in a burst."""
    time = Time()
    pace = EditPace(clock=time, sleep=time.sleep)
    for remaining in (4, 3, 2, 1, 0):
        server.allow(remaining, remaining + 1.0)
        await request(server, pace)
        await pace.ready(channel_key(42))
    assert time.slept == [1.0] * 5


async def test_editors_of_one_channel_line_up(server: Server) -> None:
    """Two replies streaming into one channel take turns."""
    turns: list[float] = []

    async def waiting(seconds: float) -> None:
        turns.append(seconds)

    pace = EditPace(clock=Time(), sleep=waiting)
    server.allow(4, 5.0)
    await request(server, pace)
    await asyncio.gather(pace.ready(channel_key(42)), pace.ready(channel_key(42)))
    assert turns == [1.0, 2.0]


async def test_a_refusal_is_waited_out(server: Server) -> None:
    """After a 429 the next edit waits as long as the server named."""
    time = Time()
    pace = EditPace(clock=time, sleep=time.sleep)
    server.status, server.headers = 429, {"Retry-After": "2.5", "X-RateLimit-Remaining": "3"}
    await request(server, pace)
    await pace.ready(channel_key(42))
    assert time.slept == [2.5]


async def test_a_webhook_is_known_by_its_token(server: Server) -> None:
    """Edits of an interaction's reply are paced apart from its channel's."""
    time = Time()
    pace = EditPace(clock=time, sleep=time.sleep)
    server.allow(0, 3.0)
    await request(server, pace, "/api/v10/webhooks/9/aW50.x-y_z/messages/@original")
    await pace.ready(webhook_key(9, "other"))
    await pace.ready(webhook_key(9, "aW50.x-y_z"))
    assert time.slept == [3.0]


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/api/v10/channels/42/messages"), ("PATCH", "/api/v10/channels/42")],
)
async def test_only_edits_of_messages_count(server: Server, method: str, path: str) -> None:
    """A new message and a renamed channel have limits of their own."""
    pace = EditPace()
    server.allow(0, 60.0)
    await request(server, pace, path, method)
    assert len(pace) == 0


@pytest.mark.parametrize("value", ["soon", "nan", "inf"])
async def test_headers_that_say_nothing_are_passed_over(server: Server, value: str) -> None:
    """A proxy's nonsense paces nothing and raises nothing."""
    pace = EditPace()
    server.headers = {"X-RateLimit-Remaining": "1", "X-RateLimit-Reset-After": value}
    await request(server, pace)
    assert len(pace) == 0


async def test_old_keys_are_dropped(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded, and a window that is over is forgotten when it is asked for."""
    monkeypatch.setattr(pace_module, "KEYS_KEPT", 2)
    time = Time()
    pace = EditPace(clock=time, sleep=time.sleep)
    server.allow(1, 4.0)
    for channel in (1, 2, 3):
        await request(server, pace, f"/api/v10/channels/{channel}/messages/7")
    assert len(pace) == 2
    time.now += 4.0
    await pace.ready(channel_key(3))
    assert (len(pace), time.slept) == (1, [])
