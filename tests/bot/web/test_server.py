"""The server runs beside the loop, says where it is, and leaves in good order."""

from __future__ import annotations

import asyncio
import signal

import httpx
import pytest
from fastapi import FastAPI

from bot.web.server import serving
from core.errors import ConfigError


def hello() -> FastAPI:
    """An application with one page."""
    app = FastAPI()

    @app.get("/")
    async def root() -> str:
        return "hello"

    return app


async def test_it_answers_on_a_free_port_and_is_gone_afterwards() -> None:
    """Port 0 takes a free one; after the block nobody listens there."""
    async with serving(hello(), host="127.0.0.1", port=0) as address, httpx.AsyncClient() as client:
        assert (await client.get(address)).json() == "hello"
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(address)


async def test_a_taken_port_is_a_plain_sentence() -> None:
    """It names the address and what to do."""
    async with serving(hello(), host="127.0.0.1", port=0) as address:
        port = int(address.rpartition(":")[2])
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}.*another port"):
            async with serving(hello(), host="127.0.0.1", port=port):
                pass


async def test_signals_stay_the_callers() -> None:
    """A handler of the command's own still stands while it serves."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, told.set)
    before = signal.getsignal(signal.SIGTERM)
    async with serving(hello(), host="127.0.0.1", port=0):
        assert signal.getsignal(signal.SIGTERM) is before
        signal.raise_signal(signal.SIGUSR1)
        await asyncio.wait_for(told.wait(), 2)
    loop.remove_signal_handler(signal.SIGUSR1)
