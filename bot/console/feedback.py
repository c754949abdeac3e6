"""Feedback's pages: search, the review queue, and files of it to take away."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, Response

from bot.console.here import Console, Here
from bot.exchange import export_raw, export_trl
from bot.review import Ticket
from core.records import SignalKind
from storage.database import Database
from storage.signals import Wanted

routes = APIRouter()
SHOWN = 20
KINDS: dict[SignalKind, str] = {
    "up": "liked",
    "down": "disliked",
    "correction": "corrections",
    "preference": "choices",
    "regenerate": "asked again",
}
FLAGS = {
    "correction": "a correction: its words would be imitated",
    "reasons": "a thumb with reasons",
    "disagree": "people disagree on this reply",
    "burst": "one person gave very many votes within an hour",
    "dictated": "the question dictated the answer",
    "swarm": "many new people said the same at once",
}
"""Says why a row waits for a look."""
Format = Literal["raw", "kto", "dpo", "sft"]


@routes.get("/feedback")
async def feedback_page(
    request: Request,
    console: Here,
    q: Annotated[str, Query(max_length=200)] = "",
    kind: str = "",
    adapter: str = "",
    run: Annotated[str, Query(max_length=100)] = "",
    start: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
) -> Response:
    """Show what was said, newest first, and how much waits for a look."""
    scope = console.scope
    wanted = Wanted(q.strip(), kind, adapter, run=run, limit=SHOWN + 1, offset=start)
    rows = await console.review.search(scope, wanted)
    likes = await console.world.database.run(lambda db: db.feedback.like_rates(scope))
    ticket = await console.review.next(scope)
    return await console.page(
        request,
        "feedback.html",
        active="feedback",
        rows=rows[:SHOWN],
        more=len(rows) > SHOWN,
        start=start,
        step=SHOWN,
        q=q,
        kind=kind,
        adapter=adapter,
        run=run,
        kinds=KINDS,
        adapters=sorted(likes),
        left=ticket.left if ticket else 0,
    )


@routes.get("/feedback/review")
async def review_page(request: Request, console: Here, after: str | None = None) -> Response:
    """Show the next row that somebody should look at."""
    ticket = await console.review.next(console.scope, after=after)
    return await console.page(request, "review.html", active="feedback", **_shown(ticket))


@routes.post("/feedback/{feedback_id}/{decision}")
async def decide(
    console: Here,
    feedback_id: str,
    decision: Literal["accept", "drop", "edit"],
    text: Annotated[str, Form()] = "",
) -> Response:
    """Let a row train, leave it out, or change a correction's words; show the next."""
    review, scope, actor = console.review, console.scope, console.actor()
    if decision == "accept":
        ticket = await review.accept(scope, feedback_id, actor=actor)
    elif decision == "drop":
        ticket = await review.drop(scope, feedback_id, actor=actor)
    else:
        ticket = await review.edit(scope, feedback_id, text, actor=actor)
    return HTMLResponse(console.part("_ticket.html", **_shown(ticket)))


@routes.post("/feedback/{feedback_id}/row/drop")
async def drop_row(console: Here, feedback_id: str) -> Response:
    """Leave a row of the list out of training; show it as such."""
    await console.review.drop(console.scope, feedback_id, actor=console.actor())
    return HTMLResponse('<span class="badge bad">left out</span>')


@routes.post("/feedback/{feedback_id}/row/edit")
async def edit_row(console: Here, feedback_id: str, text: Annotated[str, Form()] = "") -> Response:
    """Let a correction of the list train with other words; show them."""
    await console.review.edit(console.scope, feedback_id, text, actor=console.actor())
    kept = await console.review.get(console.scope, feedback_id)
    return HTMLResponse(console.part("_changed.html", text=kept.text))


@routes.get("/feedback/export/{form}")
async def export(console: Here, form: Format) -> Response:
    """Return what was consented to, as the command line exports it."""
    lines = await _exported(console, form)
    name = f"feedback-{form}.jsonl"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(lines, media_type="application/x-ndjson", headers=headers)


async def _exported(console: Console, form: Format) -> bytes:
    scope, share = console.scope, console.settings.privacy.person_share

    def written(db: Database) -> bytes:
        with tempfile.TemporaryDirectory() as home:
            path = Path(home) / "feedback.jsonl"
            if form == "raw":
                export_raw(db, path, scope=scope)
            else:
                export_trl(db, path, form, scope=scope, person_share=share)
            return path.read_bytes()

    return await console.world.database.run(written)


def _shown(ticket: Ticket | None) -> dict[str, Any]:
    return {"ticket": ticket, "flags": FLAGS, "kinds": KINDS}
