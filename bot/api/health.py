"""Whether the service is up, whether it can answer, and its figures.

`/healthz` and `/readyz` ask for no key and tell nothing of anybody; `/metrics` asks for one where
everything else does.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response

from bot.api.caller import Authenticated
from bot.api.metrics import CONTENT_TYPE
from bot.api.state import state_of

router = APIRouter()


@router.get("/healthz")
async def healthz() -> PlainTextResponse:
    """Say that the process is up."""
    return PlainTextResponse("ok\n")


@router.get("/readyz")
async def readyz(request: Request) -> PlainTextResponse:
    """Say whether engine and database answer; 503 with the reason otherwise."""
    state = state_of(request)
    fault = "the service is stopping" if state.closing else await state.readiness.fault()
    return PlainTextResponse(f"{fault}\n", 503) if fault else PlainTextResponse("ready\n")


@router.get("/metrics")
async def metrics(request: Request, caller: Authenticated) -> Response:
    """Return the figures as Prometheus reads them."""
    state = state_of(request)
    world = state.world
    votes, training = await world.database.run(
        lambda db: (db.feedback.stats(), [run.state for run in db.runs.active()])
    )
    text = state.metrics.text(world.engine.stats(), votes, training)
    return Response(text, media_type=CONTENT_TYPE)
