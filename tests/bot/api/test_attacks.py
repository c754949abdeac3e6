"""A scripted list of attacks: each is refused, and the service goes on answering."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from bot.web import patience
from bot.world import World
from tests.bot.api.conftest import HELLO, LONG, Served, served_by, standstill
from tests.bot.api.raw import request, send, status

CHAT = "/v1/chat/completions"
SOUND = json.dumps({"model": "base", "messages": HELLO, "max_tokens": 2}).encode()


@pytest_asyncio.fixture
async def guarded(world: World) -> AsyncIterator[Served]:
    """An API that takes small requests only; afterwards it must still answer."""
    async with served_by(world, max_body_bytes=20_000) as served:
        yield served
        done = await served.client().chat.completions.create(
            model="base", messages=HELLO, max_tokens=2
        )
        assert done.usage is not None and done.usage.completion_tokens == 2


@pytest.mark.parametrize(
    "path",
    [
        "/v1/../../etc/passwd",
        "/v1/models/../../../../etc/passwd",
        "/v1/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/v1/models/..%5c..%5cconfig.toml",
        "/%2e%2e/config.toml",
        "//etc/passwd",
        "/v1//chat/completions",
        "/v1/models/%00",
        "/v1/models/thumbtune.db",
        "http://elsewhere/etc/passwd",
        "/v1/models?x=" + "y" * 5000,
    ],
)
async def test_no_path_leads_to_a_file(guarded: Served, path: str) -> None:
    """They are unknown, whatever they try to climb."""
    answer = await send(guarded, request(path))
    assert status(answer) == (200 if "?" in path else 404) and b"root:" not in answer


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("127.0.0.1", 200),
        ("localhost:8700", 200),
        ("LOCALHOST", 200),
        ("[::1]:8700", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("evil@127.0.0.1", 403),
        ("127.0.0.1@evil.example", 403),
        ("localhost/../evil", 403),
        ("127.0.0.1:notaport", 403),
        ("[::1", 403),
        ("", 403),
    ],
)
async def test_a_name_that_points_here_is_not_enough(guarded: Served, host: str, code: int) -> None:
    """A page whose name was turned to this machine gets nothing (DNS rebinding)."""
    assert status(await send(guarded, request("/healthz", f"Host: {host}"))) == code


@pytest.mark.parametrize(
    ("origin", "code"),
    [
        ("http://127.0.0.1", 200),
        ("https://evil.example", 403),
        ("null", 403),
        ("http://127.0.0.1.evil.example", 403),
        ("http://127.0.0.1:1", 403),
        ("file://127.0.0.1", 403),
        ("http://[", 403),
        ("", 403),
    ],
)
async def test_another_sites_pages_are_refused(guarded: Served, origin: str, code: int) -> None:
    """Also where a browser would send the request without asking first."""
    assert status(await send(guarded, request("/healthz", f"Origin: {origin}"))) == code


@pytest.mark.parametrize(
    ("site", "code"), [("none", 200), ("same-origin", 200), ("same-site", 403), ("cross-site", 403)]
)
async def test_a_browser_says_where_a_request_comes_from(
    guarded: Served, site: str, code: int
) -> None:
    """Also where it sends no Origin, as for a picture."""
    assert status(await send(guarded, request("/healthz", f"Sec-Fetch-Site: {site}"))) == code


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        (["Host: 127.0.0.1", "Host: evil.example"], 400),
        (["Content-Length: 5", "Content-Length: 6"], 400),
        (["Content-Length: 5", "Transfer-Encoding: chunked"], 400),
        (["Content-Length: -1"], 400),
        (["Content-Length: 0x10"], 400),
        (["Content-Length: " + "9" * 400], 400),
        (["Content-Length: " + "9" * 18], 413),
        (["Content-Length: 20001"], 413),
        (["Transfer-Encoding: gzip"], 400),
        (["Authorization: Bearer a", "Authorization: Bearer b"], 400),
        (["X: " + "y" * 100_000], 400),
        (["Bad Name: x"], 400),
        (["X: a\rb"], 400),
        (["X: a\x00b"], 400),
    ],
)
async def test_headers_that_lie_or_hide_something_are_refused(
    guarded: Served, headers: list[str], code: int
) -> None:
    """Before anything is read or done."""
    answer = await send(guarded, request(CHAT, *headers, method="POST", body=SOUND))
    assert status(answer) == code


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_large_body_is_refused_while_it_is_read(guarded: Served, chunked: bool) -> None:
    """With its length told, and without one; both before it is whole."""
    if chunked:
        head = request(CHAT, "Transfer-Encoding: chunked", method="POST")
        data = head + b"5000\r\n" + b"x" * 0x5000 + b"\r\n"
    else:
        data = request(CHAT, "Content-Length: 30000", method="POST", body=b"x" * 10)
    answer = await send(guarded, data)
    assert status(answer) == 413 and b"request_too_large" in answer


async def test_a_body_longer_than_it_says_is_no_second_request(guarded: Served) -> None:
    """What follows the length that was told is refused as what it is: no request."""
    told = f"Content-Length: {len(SOUND)}"
    answer = await send(
        guarded, request(CHAT, told, method="POST", body=SOUND + b"smuggled\r\n\r\n")
    )
    assert status(answer) in (200, 400)


async def test_a_body_shorter_than_it_says_ends_with_the_patience(
    guarded: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is closed, and nothing was written."""
    monkeypatch.setattr(patience, "WHOLE_S", 0.3)
    told = f"Content-Length: {len(SOUND) + 5}"
    answer = await send(guarded, request(CHAT, told, method="POST", body=SOUND), wait_s=5)
    assert status(answer) in (0, 408)
    assert guarded.world.engine.stats().replies_total == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b'{"model": "base"}',
        b"[" * 19_000,
        b'{"messages":' * 1500,
        b'{"model":"base","messages":[{"role":"user","content":' + b"[" * 15_000,
        b'{"model":"base","messages":[{"role":"user","content":"x"}],"temperature":NaN}',
        b'{"model":"base","messages":[{"role":"user","content":"x"}],"temperature":1e999}',
        b'{"model":"base","messages":[{"role":"user","content":"x"}],"seed":' + b"9" * 5000 + b"}",
        b'{"model":{"$ne":1},"messages":[{"role":"user","content":"x"}]}',
        b'{"model":"base","messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"model":"base","messages":[' + b'{"role":"user","content":""},' * 600 + b"{}]}",
    ],
)
async def test_a_body_that_is_no_request_is_refused(guarded: Served, body: bytes) -> None:
    """Deep, half, huge or odd: a 400 in OpenAI's shape."""
    answer = await send(
        guarded, request(CHAT, f"Content-Length: {len(body)}", method="POST", body=body)
    )
    assert status(answer) == 400 and b'"invalid_request_error"' in answer


@pytest.mark.parametrize(
    "method", ["PUT", "TRACE", "OPTIONS", "CONNECT", "PATCH", "HEAD", "X" * 60]
)
async def test_other_methods_are_refused(guarded: Served, method: str) -> None:
    """OPTIONS too: no other site is ever allowed."""
    answer = await send(guarded, request(CHAT, method=method))
    assert status(answer) in (400, 405) and b"access-control" not in answer.lower()


async def test_what_is_not_http_is_refused(guarded: Served) -> None:
    """TLS, another protocol, an upgrade to one, noise."""
    noise = (b"\x16\x03\x01\x02\x00\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x00" * 70_000)
    for data in noise:
        assert status(await send(guarded, data + b"\r\n\r\n")) in (0, 400, 403)
    upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    assert status(await send(guarded, request("/v1/models", *upgrade))) in (200, 400, 426)


async def test_a_thousand_idle_connections_do_not_stop_it(guarded: Served) -> None:
    """They are opened and left; whoever asks meanwhile is answered."""
    opened = []
    for _ in range(1000):
        _, writer = await asyncio.open_connection("127.0.0.1", guarded.port)
        opened.append(writer)
    async with asyncio.timeout(10):
        assert status(await send(guarded, request("/readyz"))) == 200
    for writer in opened:
        writer.close()


async def test_a_thousand_half_requests_do_not_stop_it(
    guarded: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They lose their places when their time is over."""
    monkeypatch.setattr(patience, "WHOLE_S", 1.0)
    half = request(CHAT, "Content-Length: 1000", method="POST", body=b"x")
    opened = []
    for _ in range(1000):
        _, writer = await asyncio.open_connection("127.0.0.1", guarded.port)
        writer.write(half)
        opened.append(writer)
    async with asyncio.timeout(10):
        while status(await send(guarded, request("/readyz"))) != 200:
            await asyncio.sleep(0.1)
    for writer in opened:
        writer.close()


async def test_a_reader_that_reads_nothing_holds_no_place(guarded: Served) -> None:
    """Its replies end all the same."""
    asked = {"model": "base", "messages": HELLO, "n": 8, "stream": True, **LONG}
    body = json.dumps(asked).encode()
    _, writer = await asyncio.open_connection("127.0.0.1", guarded.port)
    writer.write(request(CHAT, f"Content-Length: {len(body)}", method="POST", body=body))
    async with asyncio.timeout(20):
        while not guarded.world.engine.stats().replies_total >= 8:
            await asyncio.sleep(0.05)
    writer.close()


async def test_a_request_that_takes_too_long_is_told_so(world: World) -> None:
    """504, and its place is free."""
    async with served_by(world, time_limit_s=0.5) as served, served.http() as http:
        with standstill(world):
            body = {"model": "base", "messages": HELLO, "n": 4, **LONG}
            answer = await http.post(CHAT, json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
        async with asyncio.timeout(5):
            while served.state.running:
                await asyncio.sleep(0.01)
