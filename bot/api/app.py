"""The API as one application, and how it stands beside another.

Its guard, its errors and its figures are its own: nothing of them touches what is served beside it,
and no page about the API is served. Invariant: what is not one of `PATHS` is never the API's.
"""

from __future__ import annotations

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from bot.api import completions, feedback, health, lora, models, privacy, upload
from bot.api.errors import handle_errors
from bot.api.guard import Guard
from bot.api.metrics import Counted
from bot.api.state import ApiState
from bot.web.guard import is_loopback
from bot.world import World

PATHS = ("/healthz", "/readyz", "/metrics")
PREFIX = "/v1/"
_ROUTERS = (completions, models, feedback, privacy, lora, upload, health)


def create_api(world: World, *, private: bool | None = None) -> FastAPI:
    """Build the API of a world.

    `private` says that only this machine can reach it; by itself the section `[api]` says so.
    """
    if private is None:
        private = is_loopback(world.settings.api.host)
    app = FastAPI(
        title="Thumbtune", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
    )
    app.state.api = state = ApiState(world, private=private)
    for module in _ROUTERS:
        app.include_router(module.router)
    handle_errors(app)
    app.add_middleware(Guard, settings=world.settings.api, private=private)
    app.add_middleware(Counted, metrics=state.metrics)
    return app


def api_state(app: FastAPI) -> ApiState:
    """Return what an API's routes share, for whoever starts and stops it."""
    state: ApiState = app.state.api
    return state


def beside(api: ASGIApp, other: ASGIApp) -> ASGIApp:
    """Return one application: the API's paths are the API's, all others the other's."""

    async def either(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        mine = path in PATHS or path.startswith(PREFIX)
        await (api if mine else other)(scope, receive, send)

    return either
