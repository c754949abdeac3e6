"""Which hosts and origins are ours, and what happens to slow and odd requests."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bot.web import guard
from bot.web.guard import Guard, Site, is_loopback


@pytest.mark.parametrize(
    ("bound", "asked", "ours"),
    [
        ("127.0.0.1", "127.0.0.1:8700", True),
        ("127.0.0.1", "[::1]", True),
        ("127.0.0.1", "192.0.2.1", False),
        ("127.0.0.1", "box.local", False),
        ("0.0.0.0", "192.0.2.1:8700", True),  # noqa: S104 # only compared
        ("0.0.0.0", "evil.example", False),  # noqa: S104 # only compared
        ("box.local", "box.local:8700", True),
        ("127.0.0.1", "[::1", False),
    ],
)
def test_names_are_ours_only_as_configured(bound: str, asked: str, ours: bool) -> None:
    """An address cannot be rebound, a name can."""
    assert Site(bound).admits_host(asked) is ours


def test_the_public_address_is_host_and_origin() -> None:
    """With a proxy the browser's origin is the proxy's."""
    site = Site("127.0.0.1", "https://bot.example.org")
    assert site.admits_host("bot.example.org")
    assert site.admits_origin("https://bot.example.org", "bot.example.org")
    assert not site.admits_origin("https://evil.example", "bot.example.org")
    assert site.secure and not Site("127.0.0.1").secure


async def answered(receive: Any, **about: Any) -> int:
    """Send a request through the guard; return the status."""

    async def app(_: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "headers": [(b"host", b"localhost")], **about}
    await Guard(app, Site("127.0.0.1"))(scope, receive, send)
    return int(sent[0]["status"])


async def test_a_body_that_trickles_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sends byte by byte holds nothing up."""
    monkeypatch.setattr(guard, "BODY_DEADLINE_S", 0.05)

    async def receive() -> Any:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    assert await answered(receive) == 408


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"host", b"localhost"), (b"host", b"evil.example")], 421),
        ([(b"host", b"localhost"), (b"origin", b"http://localhost"), (b"origin", b"x")], 403),
        ([(b"host", b"localhost"), (b"sec-fetch-site", b"cross-site")], 403),
        ([(b"host", b"localhost"), (b"content-length", b"-1")], 413),
        ([(b"host", b"localhost"), (b"x-forwarded-host", b"evil.example")], 200),
        ([], 421),
    ],
)
async def test_tricks_with_headers_do_nothing(
    headers: list[tuple[bytes, bytes]], status: int
) -> None:
    """Doubled, foreign, impossible and made-up headers are refused or looked past."""

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    assert await answered(receive, headers=headers) == status


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104
        ("::", False),
        ("192.168.1.5", False),
        ("localhost.example", False),
    ],
)
def test_only_this_machines_own_addresses_are_loopback(host: str, loopback: bool) -> None:
    """Whatever else it is, others may reach it."""
    assert is_loopback(host) is loopback
