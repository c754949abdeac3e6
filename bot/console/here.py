"""What every page of the console stands on: the world, whose feedback it is about, the templates.

One scope (`console` unless told otherwise) and one person, the operator, who is also who types at
the terminal. Knows no route.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment

from bot.arena import ArenaService
from bot.console.assets import Asset
from bot.console.door import Door
from bot.console.preferences import read_sampling
from bot.console.training import TrainingDesk
from bot.review import ReviewService
from bot.world import World
from core.generation import BASE, Sampling
from core.records import Person
from core.settings import Settings

THEME_COOKIE = "thumbtune_theme"
THEMES = ("auto", "light", "dark")
PAGES = ("chat", "training", "adapters", "arena", "feedback", "overview")
PLATFORM, OPERATOR = "console", "operator"


@dataclass(slots=True)
class Console:
    """One console. `closing` is set when it stops, so that no stream keeps the server waiting."""

    world: World
    settings: Settings
    scope: str
    templates: Environment
    assets: dict[str, Asset]
    desk: TrainingDesk
    arena: ArenaService
    review: ReviewService
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    async def person(self) -> Person:
        """Return the operator, made at the first call, and anew once they were forgotten."""
        return await self.world.database.run(
            lambda db: db.people.ensure(PLATFORM, OPERATOR, display_name=OPERATOR, consent="given")
        )

    async def sampling(self) -> Sampling:
        """Return how the tokens of the next reply are drawn."""
        default = self.world.chat.sampling()
        return await read_sampling(self.world.database, self.scope, default)

    def part(self, name: str, **values: Any) -> str:
        """Render a part of a page."""
        return self.templates.get_template(name).render(**values)

    async def page(
        self, request: Request, name: str, *, status: int = 200, **values: Any
    ) -> HTMLResponse:
        """Render a whole page with what each one shows: who speaks, and the session's token."""
        door: Door = request.state.door
        scope = self.scope
        row = await self.world.database.run(lambda db: db.scopes.ensure(scope))
        theme = request.cookies.get(THEME_COOKIE, "")
        html = self.part(
            name,
            token=door.token(request.state.session),
            locked=door.locked,
            speaking=row.live or BASE,
            canary=row.canary,
            base=self.world.base.name,
            pages=PAGES,
            theme=theme if theme in THEMES else "auto",
            **values,
        )
        return HTMLResponse(html, status_code=status)

    def actor(self) -> str:
        """Name who acts here in the audit trail, as the terminal does."""
        return f"{PLATFORM}:{OPERATOR}"


def console_of(request: Request) -> Console:
    """Return the console that a request came to."""
    console: Console = request.app.state.console
    return console


Here = Annotated[Console, Depends(console_of)]
