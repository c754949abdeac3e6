"""The web console as one application: its pages, behind the door, behind the guard.

Invariant: no documentation pages, no file of the machine, nothing from elsewhere; a refusal is one
plain sentence. Whoever serves it calls `close_console` before the server stops.
"""

from __future__ import annotations

import time

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from bot.arena import ArenaService
from bot.console import arena, chat, entrance, feedback, overview, people, runs, versions
from bot.console.assets import load_assets
from bot.console.door import Door
from bot.console.here import Console, console_of
from bot.console.password import password_hash, signing_key
from bot.console.sessions import Sessions, Throttle
from bot.console.templating import make_templates
from bot.console.training import TrainingDesk
from bot.review import ReviewService
from bot.web.guard import Guard, Site
from bot.world import World
from core.errors import (
    ConfigError,
    Conflict,
    EngineBusy,
    EngineStopped,
    InvalidInput,
    NotEnoughData,
    NotFound,
    RunInProgress,
    ThumbtuneError,
)
from core.settings import Settings

DEFAULT_SCOPE = "console"
_STATUS: tuple[tuple[type[ThumbtuneError], int], ...] = (
    (InvalidInput, 422),
    (NotFound, 404),
    (EngineBusy, 503),
    (EngineStopped, 503),
    (Conflict, 409),
    (RunInProgress, 409),
    (NotEnoughData, 409),
)


def create_console(world: World, settings: Settings, *, scope: str = DEFAULT_SCOPE) -> FastAPI:
    """Build the console over an open world; call it on the event loop.

    Raises ConfigError where it would listen beyond this machine without a password, and where htmx
    is missing.
    """
    site = Site(settings.console.host, settings.console.public_url)
    key = signing_key(settings.data_dir)
    hashed = password_hash(settings, key)
    if hashed is None and (site.public_url or not site.private):
        raise ConfigError([_OPEN_TO_ALL.format(settings.console.host)])
    assets = load_assets()
    app = FastAPI(title="Thumbtune", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.console = Console(
        world=world,
        settings=settings,
        scope=scope,
        templates=make_templates(assets),
        assets=assets,
        desk=TrainingDesk(world, scope),
        arena=ArenaService(world.database, world.chat, world.registry),
        review=ReviewService(world.database),
    )
    app.state.entry = entrance.Entry(hashed, Throttle(time.monotonic))
    for face in (entrance, chat, runs, versions, arena, feedback, people, overview):
        app.include_router(face.routes)
    _tell_errors(app)
    sessions = Sessions(key, hashed, time.time)
    app.add_middleware(Door, sessions=sessions, locked=hashed is not None, secure=site.secure)
    app.add_middleware(Guard, site=site)  # added last, asked first
    return app


async def close_console(app: FastAPI) -> None:
    """End the console's streams and its training runs, which go on at the next start."""
    console: Console = app.state.console
    console.closing.set()
    await console.desk.close()


_OPEN_TO_ALL = (
    "console.host is {!r} (or public_url is set): others than this machine could reach the "
    "console, and it has no password; set one with `thumbtune console-password` (or "
    'THUMBTUNE_CONSOLE_PASSWORD), or set console.host = "127.0.0.1" and clear public_url'
)


def _tell_errors(app: FastAPI) -> None:
    """Turn what is raised on purpose into its sentence: a page for a page, text for a part."""

    async def told(request: Request, error: Exception) -> Response:
        status = next((code for kind, code in _STATUS if isinstance(error, kind)), 400)
        return await _sentence(request, status, str(error))

    async def missing(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 404
        return await _sentence(request, status, _PLAIN.get(status, "This cannot be done here."))

    async def unusable(request: Request, _: Exception) -> Response:
        return await _sentence(request, 422, "Something in this request is missing or wrong.")

    app.add_exception_handler(ThumbtuneError, told)
    app.add_exception_handler(HTTPException, missing)
    app.add_exception_handler(RequestValidationError, unusable)


_PLAIN = {404: "There is no such page.", 405: "This page cannot be asked for in this way."}


async def _sentence(request: Request, status: int, sentence: str) -> Response:
    shown = request.method == "GET" and "hx-request" not in request.headers
    if not shown or not hasattr(request.state, "door"):
        return PlainTextResponse(sentence, status_code=status)
    page: HTMLResponse = await console_of(request).page(
        request, "error.html", status=status, sentence=sentence, active=""
    )
    return page
