"""The way in: the log-in, the log-out, the files of the fixed list, and a sign of life.

Invariant: passwords are tried one at a time and seldom, whoever asks; what a wrong one is told does
not depend on how wrong it was.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.responses import PlainTextResponse, RedirectResponse, Response

from bot.console.here import Here
from bot.console.password import matches
from bot.console.sessions import Throttle

log = logging.getLogger(__name__)
routes = APIRouter()
_FOREVER = "public, max-age=31536000, immutable"
_HOME = "/chat"


class Entry:
    """Compares passwords; `hashed` None means there is none to give."""

    def __init__(self, hashed: str | None, throttle: Throttle) -> None:
        self._hashed = hashed
        self._throttle = throttle
        self._one_at_a_time = asyncio.Lock()

    async def try_password(self, password: str, address: str) -> tuple[bool, float]:
        """Return whether it is right, and how many seconds to wait if it was not looked at."""
        if self._hashed is None:
            return True, 0.0
        async with self._one_at_a_time:
            wait_s = self._throttle.wait_s(address)
            if wait_s > 0:
                return False, wait_s
            right = await asyncio.to_thread(matches, password, self._hashed)
            if not right:
                self._throttle.note(address)
                log.warning("a wrong password for the console, from %s", address)
            return right, 0.0


@routes.get("/")
async def home() -> Response:
    """Lead to the chat."""
    return RedirectResponse(_HOME, status_code=303)


@routes.get("/alive")
async def alive() -> Response:
    """Say that the server is there, and nothing else."""
    return Response(status_code=204)


@routes.get("/static/{name}")
async def asset(console: Here, name: str, v: str = "") -> Response:
    """Return a file of the fixed list."""
    found = console.assets.get(name)
    if found is None:
        raise HTTPException(404)
    cached = _FOREVER if v == found.version else "no-cache"
    return Response(found.body, media_type=found.media_type, headers={"cache-control": cached})


@routes.get("/favicon.ico")
async def favicon(console: Here) -> Response:
    """Return the icon that browsers ask for by themselves."""
    return await asset(console, "icon.svg")


@routes.get("/login")
async def login_page(request: Request, console: Here) -> Response:
    """Ask for the password, if there is one and it was not given."""
    if not request.state.door.locked or request.state.session.known:
        return RedirectResponse(_HOME, status_code=303)
    return await console.page(request, "login.html", active="")


@routes.post("/login")
async def login(request: Request, password: Annotated[str, Form(max_length=2000)] = "") -> Response:
    """Let a browser in that knows the password."""
    entry: Entry = request.app.state.entry
    address = request.client.host if request.client else "?"
    right, wait_s = await entry.try_password(password, address)
    if wait_s:
        said = f"Too many wrong passwords. Wait {wait_s:.0f} seconds, then try again."
        return PlainTextResponse(said, 429, headers={"retry-after": f"{wait_s:.0f}"})
    if not right:
        return PlainTextResponse("This is not the password.", 403)
    headers = {"hx-redirect": _HOME, "set-cookie": request.state.door.let_in()}
    return Response(status_code=204, headers=headers)


@routes.post("/logout")
async def logout(request: Request) -> Response:
    """Take the browser's cookie away."""
    gone = request.state.door.cookie_header(None)
    return Response(status_code=204, headers={"hx-redirect": "/login", "set-cookie": gone})
