"""Adapters' pages: the family with its figures, who speaks, and how to change that."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse

from bot.adapters import archive, find, promote, reason_of, report_of, roll_back, shelf, try_out
from bot.canary import account
from bot.console.here import Console, Here
from bot.overview import Liked, liked
from core.errors import NotFound
from core.generation import BASE
from core.records import AdapterRecord, Event, Run
from core.report import Interval
from storage.database import Database

routes = APIRouter()
CHUNK_BYTES = 1 << 16
_MOVES = ("adapter.promoted", "adapter.rolled_back", "adapter.canary", "adapter.base_promoted")


@dataclass(frozen=True, slots=True)
class Version:
    """One version as a page shows it; `record` None is the base model."""

    name: str
    record: AdapterRecord | None
    state: str
    reason: str
    likes: Liked
    accuracy: Interval | None
    odds: Interval | None
    keep_score: float | None
    moved: Event | None
    needs_retraining: bool = False


@routes.get("/adapters")
async def adapters_page(request: Request, console: Here) -> Response:
    """Show every version, newest first, the base last."""
    world, scope = console.world, console.scope
    stand = await shelf(world.database, scope)
    trial = await world.canary.standing(scope)
    return await console.page(
        request,
        "adapters.html",
        active="adapters",
        stand=stand,
        versions=await _versions(console),
        trial=trial,
        account=account(trial) if trial else "",
    )


@routes.get("/speaking")
async def speaking(console: Here, known: str = "") -> Response:
    """Say who speaks now, for the pages that are open; nothing where they `known` that already."""
    stand = await shelf(console.world.database, console.scope)
    if known == f"{stand.live} {stand.canary or ''}":
        return Response(status_code=204)
    html = console.part("_speaking.html", speaking=stand.live, canary=stand.canary)
    return HTMLResponse(html)


@routes.post("/adapters/promote")
async def promote_version(
    console: Here, name: Annotated[str, Form()], force: Annotated[bool, Form()] = False
) -> Response:
    """Let a version, or the base, speak from the next reply on."""
    world = console.world
    full = await find(world.database, console.scope, name)
    await promote(
        world.database,
        world.settings.data_dir,
        full,
        scope=console.scope,
        actor=console.actor(),
        force=force,
    )
    return await _moved(console)


@routes.post("/adapters/rollback")
async def roll_back_version(console: Here) -> Response:
    """End a trial, else go back to what spoke before."""
    world = console.world
    await roll_back(world.database, world.settings.data_dir, console.scope, actor=console.actor())
    return await _moved(console)


@routes.post("/adapters/trial")
async def try_version(
    console: Here, name: Annotated[str, Form()], percent: Annotated[int, Form(ge=1, le=90)]
) -> Response:
    """Let a version answer a share of new conversations until their votes decide."""
    world = console.world
    full = await find(world.database, console.scope, name)
    await try_out(
        world.database,
        world.settings.data_dir,
        full,
        share=percent / 100,
        actor=console.actor(),
    )
    return await _moved(console)


@routes.get("/adapters/{name}/export.zip")
async def export(console: Here, name: str) -> Response:
    """Return a version as a zip of its PEFT directory."""
    world = console.world
    full = await find(world.database, console.scope, name)
    if full == BASE:
        raise NotFound("the base model is no adapter; choose a version")
    record = await world.database.run(lambda db: db.adapters.get(full))
    file = tempfile.TemporaryFile()  # noqa: SIM115 # closed when it was sent
    try:
        await asyncio.to_thread(archive, record, world.settings.data_dir, file)
    except BaseException:
        file.close()
        raise
    size = file.tell()
    headers = {
        "content-disposition": f'attachment; filename="{full.replace("@", "-")}.zip"',
        "content-length": str(size),
    }
    return StreamingResponse(_pieces(file), media_type="application/zip", headers=headers)


async def _versions(console: Console) -> list[Version]:
    scope, data_dir = console.scope, console.settings.data_dir
    stand = await shelf(console.world.database, scope)

    def read(db: Database) -> tuple[dict[str, Run], dict[str, Event | None], set[str]]:
        runs = {run.id: run for run in db.runs.list(scope, limit=1000)}
        names = [BASE, *(record.name for record in stand.adapters)]
        moves = {name: _last_move(db.events.list(limit=50, subject=name), scope) for name in names}
        return runs, moves, {one.name for one in db.adapters.needing_retraining(scope)}

    runs, moves, flagged = await console.world.database.run(read)
    found = []
    for record in stand.adapters:
        run = runs.get(record.run_id or "")
        report = report_of(run) if run else None
        candidate = report.systems.get("candidate") if report else None
        found.append(
            Version(
                name=record.name,
                record=record,
                state=record.state,
                reason=reason_of(record, data_dir),
                likes=liked(record.name, *stand.likes.get(record.name, (0, 0))),
                accuracy=report.preference.accuracy if report and report.preference else None,
                odds=report.odds if report else None,
                keep_score=candidate.keep_score if candidate else None,
                moved=moves[record.name],
                needs_retraining=record.name in flagged,
            )
        )
    return [*found, _base(stand.live, stand.likes.get(BASE, (0, 0)), moves[BASE])]


def _base(live: str, likes: tuple[int, int], moved: Event | None) -> Version:
    state = "live" if live == BASE else "candidate"
    return Version(BASE, None, state, "", liked(BASE, *likes), None, None, None, moved)


def _last_move(events: list[Event], scope: str) -> Event | None:
    """Return when something last began to speak here, or went on trial."""
    here = (one for one in events if one.action in _MOVES)
    return next((one for one in here if one.detail.get("scope", scope) == scope), None)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        file.seek(0)
        while piece := file.read(CHUNK_BYTES):
            yield piece


async def _moved(console: Console) -> Response:
    """Follow the pointer, and lead back to the list."""
    await console.world.registry.sync()
    return Response(status_code=204, headers={"hx-redirect": "/adapters"})
