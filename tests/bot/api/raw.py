"""Requests byte for byte, as no well-behaved client sends them."""

from __future__ import annotations

import asyncio
import contextlib

from tests.bot.api.conftest import Served


async def send(served: Served, data: bytes, *, wait_s: float = 10) -> bytes:
    """Send bytes on a connection of their own; return what comes until it is closed or quiet."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    try:
        writer.write(data)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        return await _answer(reader, wait_s)
    finally:
        writer.close()


async def _answer(reader: asyncio.StreamReader, wait_s: float) -> bytes:
    """Read the head and what is there of the body."""
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(wait_s):
            return await reader.read(65536)
    return b""


def request(
    path: str = "/v1/models", *headers: str, method: str = "GET", body: bytes = b"", host: str = ""
) -> bytes:
    """Write a request; a Host header is there unless `headers` bring one."""
    named = any(line.lower().startswith("host:") for line in headers)
    lines = [f"{method} {path} HTTP/1.1", *([] if named else [f"Host: {host or '127.0.0.1'}"])]
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1") + body


def status(answer: bytes) -> int:
    """Return the status of an answer; 0 if the connection was closed without one."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0
