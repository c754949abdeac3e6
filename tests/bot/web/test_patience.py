"""Connections that send nothing, or too slowly, lose their place; who works keeps theirs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI, Request

from bot.web import patience
from bot.web.server import serving


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """An application that takes its time, served with little patience."""
    monkeypatch.setattr(patience, "WHOLE_S", 0.3)
    monkeypatch.setattr(patience, "MOST_OPEN", 3)
    app = FastAPI()

    @app.post("/slow")
    async def slow(request: Request) -> int:
        size = len(await request.body())
        await asyncio.sleep(0.8)
        return size

    async with serving(app, host="127.0.0.1", port=0) as address:
        yield int(address.rpartition(":")[2])


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
HEAD = b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"


async def connect(port: int, data: bytes = b"") -> Connection:
    """Open a connection and send something."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    return reader, writer


async def ended(connection: Connection, within_s: float = 2) -> bool:
    """Say whether the other side closes the connection, without an answer."""
    try:
        async with asyncio.timeout(within_s):
            return await connection[0].read() == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


@pytest.mark.parametrize("sent", [b"", b"POST /sl", HEAD[:-2], HEAD, HEAD + b"abc"])
async def test_what_does_not_arrive_whole_is_closed(port: int, sent: bytes) -> None:
    """Whether nothing came, half a head or half a body."""
    connection = await connect(port, sent)
    answer = await asyncio.wait_for(connection[0].read(), 3)
    assert b"200" not in answer
    connection[1].close()


async def test_a_body_that_comes_steadily_may_take_its_time(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adapter over a slow line: longer in all than a request may take, and never too slow."""
    monkeypatch.setattr(patience, "SLOWEST_BYTES_S", 10)
    reader, writer = await connect(port, HEAD.replace(b": 4", b": 60"))
    for _ in range(15):
        writer.write(b"abcd")
        await writer.drain()
        await asyncio.sleep(0.05)
    assert (await asyncio.wait_for(reader.readline(), 3)).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_drops_one_by_one_do_not_help(port: int) -> None:
    """The time counts from the first byte, not from the last."""
    _, writer = await connect(port)
    with pytest.raises(ConnectionError):
        for _ in range(100):
            writer.write(b"P")
            await writer.drain()
            await asyncio.sleep(0.05)
    writer.close()


async def test_a_whole_request_may_be_answered_as_slowly_as_it_takes(port: int) -> None:
    """Patience is for what arrives; a second request on the same connection is as welcome."""
    reader, writer = await connect(port)
    for _ in range(2):
        writer.write(HEAD + b"abcd")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 3)
        assert head.startswith(b"HTTP/1.1 200") and await reader.readexactly(1) == b"4"
    writer.close()


async def test_the_longest_idle_makes_room_and_who_works_does_not(port: int) -> None:
    """Of three places one is at work; two idle ones give way to newcomers, the older first."""
    busy = await connect(port, HEAD + b"abcd")
    await asyncio.sleep(0.05)
    first, second = await connect(port), await connect(port)
    await asyncio.sleep(0.05)
    third = await connect(port)
    assert await ended(first, 0.15) and not await ended(second, 0.05)
    assert (await busy[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    for _, writer in (busy, first, second, third):
        writer.close()
