"""How replies are written in the console: the scope's system prompt, and how tokens are drawn.

Kept with the scope, so that a restart and another browser see the same. Knows no page.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from core.generation import Sampling
from core.settings import Settings
from storage.aio import AsyncDatabase
from storage.database import Database

MAX_PERSONA_CHARS = 4000


class Preferences(BaseModel):
    """What the drawer sets; every bound is the settings' own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    persona: Annotated[str, Field(max_length=MAX_PERSONA_CHARS)] = ""
    temperature: Annotated[float, Field(ge=0, le=2)]
    top_p: Annotated[float, Field(gt=0, le=1)]
    top_k: Annotated[int, Field(ge=0, le=1000)]
    max_tokens: Annotated[int, Field(ge=1)]


def most_tokens(settings: Settings) -> int:
    """Return the longest reply that leaves half of the context to the question."""
    return max(settings.chat.max_tokens, settings.serving.max_context_tokens // 2)


async def read_sampling(database: AsyncDatabase, scope: str, default: Sampling) -> Sampling:
    """Return how tokens are drawn in the console."""
    held = await database.run(lambda db: db.places.get(_key(scope)))
    return replace(default, **{name: held[name] for name in _NAMES if name in held})


async def store(database: AsyncDatabase, scope: str, chosen: Preferences, *, actor: str) -> None:
    """Keep what the drawer set, in one transaction."""
    drawing = {name: getattr(chosen, name) for name in _NAMES}
    await _put(database, scope, chosen.persona.replace("\r\n", "\n").strip(), drawing, actor)


async def reset(database: AsyncDatabase, scope: str, *, actor: str) -> None:
    """Go back to what the settings say."""
    await _put(database, scope, "", {}, actor)


_NAMES = tuple(name for name in asdict(Sampling()) if name in Preferences.model_fields)


async def _put(
    database: AsyncDatabase, scope: str, persona: str, drawing: dict[str, float], actor: str
) -> None:
    def put(db: Database) -> None:
        with db.transaction():
            if db.scopes.ensure(scope).persona != persona:
                db.scopes.set_persona(scope, persona, actor=actor)
            db.places.put(_key(scope), drawing, actor=actor)

    await database.run(put)


def _key(scope: str) -> str:
    return f"console/{scope}"
