"""Training's pages: what waits, a run begun, followed and cancelled, and how each one ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, Response

from bot.console.drawing import shares
from bot.console.here import Console, Here
from bot.console.sheet import RECIPES, Sheet, left_out, make_sheet, plain_reasons, side
from bot.console.stream import Event, streamed
from core.errors import NotEnoughData, NotFound
from core.records import ACTIVE_RUN_STATES, Run

routes = APIRouter()
WATCH_S = 0.7
HISTORY = 50
Recipe = Literal["auto", "bon", "sft", "kto", "apo", "dpo"]


@routes.get("/training")
async def training_page(request: Request, console: Here) -> Response:
    """Show what waits to be learnt, what runs, and what ran."""
    world, scope = console.world, console.scope
    standing = await console.review.standing(scope)
    runs = await world.database.run(lambda db: db.runs.list(scope, limit=HISTORY))
    running = next((run for run in runs if run.state in ACTIVE_RUN_STATES), None)
    stats = standing.stats
    return await console.page(
        request,
        "training.html",
        active="training",
        stats=stats,
        balance=shares(stats["up"], stats["down"]),
        may_train=standing.may_train,
        left_out=plain_reasons(standing.left_out),
        least=console.settings.training.min_examples,
        enabled=console.settings.training.enabled,
        recipes=RECIPES,
        recipe=console.settings.training.recipe,
        running=await _sheet(console, running) if running else None,
        runs=[make_sheet(run, ()) for run in runs],
    )


@routes.get("/training/plan")
async def plan(console: Here, recipe: Recipe = "auto") -> Response:
    """Say what a run would learn from; train nothing."""
    try:
        found = await console.world.learning.plan(console.scope, recipe)
    except NotEnoughData as error:
        return HTMLResponse(console.part("_plan.html", refusal=str(error)))
    counts = found.counts()
    html = console.part(
        "_plan.html",
        refusal="",
        recipe=found.recipe.name,
        why=found.recipe.why,
        why_split=found.why_split,
        train=side(counts, "train"),
        held_out=side(counts, "held_out"),
        left_out=left_out(counts),
    )
    return HTMLResponse(html)


@routes.post("/training/runs")
async def begin(console: Here, recipe: Annotated[Recipe, Form()] = "auto") -> Response:
    """Begin a run and lead to its page."""
    run = await console.desk.begin(recipe, actor=console.actor())
    return Response(status_code=204, headers={"hx-redirect": f"/training/runs/{run.id}"})


@routes.get("/training/runs/{run_id}")
async def run_page(request: Request, console: Here, run_id: str) -> Response:
    """Show one run: its course while it goes on, its report at the end."""
    sheet = await _sheet(console, await _own(console, run_id))
    return await console.page(request, "run.html", active="training", s=sheet)


@routes.get("/training/runs/{run_id}/events")
async def follow(console: Here, run_id: str) -> Response:
    """Follow a run; one that has ended is shown at once."""
    await _own(console, run_id)
    return streamed(_course(console, run_id), console.closing)


@routes.post("/training/runs/{run_id}/cancel")
async def cancel(console: Here, run_id: str) -> Response:
    """Ask whoever drives the run to stop it."""
    await _own(console, run_id)
    await console.world.learning.cancel(run_id, actor=console.actor())
    return Response(status_code=204)


@routes.post("/training/runs/{run_id}/resume")
async def resume(console: Here, run_id: str) -> Response:
    """Go on with a run that was interrupted."""
    await _own(console, run_id)
    await console.desk.resume(run_id, actor=console.actor())
    return Response(status_code=204, headers={"hx-redirect": f"/training/runs/{run_id}"})


async def _course(console: Console, run_id: str) -> AsyncIterator[Event]:
    """Yield the run's course whenever it has changed, then its end."""
    shown = ""
    while True:
        sheet = await _sheet(console, await _own(console, run_id))
        if not sheet.active:
            break
        html = console.part("_course.html", s=sheet)
        if html != shown:
            shown = html
            yield Event("course", html)
        await asyncio.sleep(WATCH_S)
    yield Event("end", console.part("_run.html", s=sheet))


async def _sheet(console: Console, run: Run) -> Sheet:
    progress = await asyncio.to_thread(console.world.learning.progress, run)
    return make_sheet(run, progress)


async def _own(console: Console, run_id: str) -> Run:
    run = await console.world.database.run(lambda db: db.runs.get(run_id))
    if run.scope != console.scope:
        raise NotFound(f"run {run_id!r}: there is no such run")
    return run
