"""The arena's page: two versions answer one question, and one says blindly which answer is better.

Invariant: nothing sent to the page says which version wrote which answer, before the choice or
after it.
"""

from __future__ import annotations

import random
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, Response

from bot.adapters import find, shelf
from bot.arena import Choice, Sides
from bot.console.here import Console, Here
from bot.memory import Ask
from core.errors import Conflict
from core.generation import BASE, Message

routes = APIRouter()
_ORDER = random.SystemRandom()


@routes.get("/arena")
async def arena_page(request: Request, console: Here) -> Response:
    """Ask for a question, and show how versions stand against each other."""
    stand = await shelf(console.world.database, console.scope)
    names = [*(one.name for one in stand.adapters if one.state != "refused"), BASE]
    try:
        sides = await console.arena.sides(console.scope)
    except Conflict:
        sides = None
    return await console.page(
        request,
        "arena.html",
        active="arena",
        names=names,
        sides=sides,
        tallies=await console.arena.tallies(console.scope),
    )


@routes.post("/arena/matches")
async def open_match(
    console: Here,
    candidate: Annotated[str, Form()],
    reference: Annotated[str, Form()],
    text: Annotated[str, Form()] = "",
) -> Response:
    """Let both sides answer; show both answers once they are whole."""
    clean = console.world.chat.checked(text)
    database, scope = console.world.database, console.scope
    sides = Sides(await find(database, scope, candidate), await find(database, scope, reference))
    ask = await _ask(console, clean)
    opened = await console.arena.open_match(ask, rng=_ORDER, sides=sides)
    return HTMLResponse(console.part("_match.html", match=opened, question=clean))


@routes.post("/arena/matches/{match_id}/choice")
async def choose(console: Here, match_id: str, choice: Annotated[Choice, Form()]) -> Response:
    """Store which answer is better, and show how the versions stand."""
    person = await console.person()
    await console.arena.choose(match_id, person.id, choice)
    tallies = await console.arena.tallies(console.scope)
    return HTMLResponse(console.part("_chosen.html", choice=choice, tallies=tallies))


async def _ask(console: Console, text: str) -> Ask:
    """Turn a text into a question of its own, without what was said before."""
    world, scope = console.world, console.scope
    person = await console.person()
    row = await world.database.run(lambda db: db.scopes.ensure(scope))
    persona = row.persona or console.settings.chat.persona
    system = (Message("system", persona),) if persona else ()
    return Ask(
        scope=scope,
        conversation_id=await world.chat.open(scope, person),
        prompt=(*system, Message("user", text)),
        authors=(person.id,),
        sampling=await console.sampling(),
        in_history=False,
    )
