"""HTTP beside everything else the event loop does: one application, served for the time of a block.

Signals stay the caller's: the server neither installs handlers nor ends the process. Knows nothing
of what the application answers.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.types import ASGIApp

from bot.web.patience import PatientProtocol
from core.errors import ConfigError

LEAVE_S = 5.0
"""How long open requests may still run when the server is told to stop."""
BACKLOG = 512
_POLL_S = 0.01


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the command decides when to stop."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(app: ASGIApp, *, host: str, port: int) -> AsyncIterator[str]:
    """Serve an application; yields its address, such as `http://127.0.0.1:8700`.

    Port 0 takes a free one. Raises ConfigError where the address cannot be bound.
    """
    listener = _listen(host, port)
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        log_level="warning",
        proxy_headers=False,  # anybody on this machine could name another address or scheme
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=int(LEAVE_S),
    )
    server = _Server(config)
    running = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    try:
        while not server.started and not running.done():
            await asyncio.sleep(_POLL_S)
        yield _address(host, listener)
    finally:
        server.should_exit = True
        await running
        listener.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        said = (
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another port "
            "(port 0 takes a free one) or stop what listens there"
        )
        raise ConfigError([said]) from error
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def _address(host: str, listener: socket.socket) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listener.getsockname()[1]}"
