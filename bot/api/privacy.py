"""`/v1/privacy`: a person's say over what is kept of them, through the application they use.

The application asks its people and passes on what they decided; nothing here decides for them.
"""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request, Response

from bot.api.caller import Authenticated, person_of
from bot.api.errors import invalid
from bot.api.schema import Strict, read
from bot.api.state import ApiState, state_of
from bot.feedback import CONSENT_PRESUMED
from bot.privacy import export_person, forget, holding, opt_in, opt_out
from core.records import Person

router = APIRouter()


class Decision(Strict):
    """What a person decided."""

    consent: Literal["given", "refused"]
    user: str | None = None


@router.get("/v1/privacy")
async def export(request: Request, caller: Authenticated, user: str | None = None) -> Response:
    """Return everything held about a person."""
    state = state_of(request)
    person = await person_of(state, caller, user)
    held = await export_person(state.world.database, person.id)
    return Response(held, media_type="application/json")


@router.post("/v1/privacy")
async def decide(request: Request, caller: Authenticated) -> dict[str, Any]:
    """Store whether a person agrees; refusing removes the words kept until now."""
    state = state_of(request)
    decision = await read(request, Decision)
    person = _not_operator(await person_of(state, caller, decision.user))
    world = state.world
    if decision.consent == "given":
        await opt_in(world.database, person.id)
    else:
        await opt_out(
            world.database,
            world.settings.data_dir,
            person.id,
            actor=person.id,
            memories=(world.chat.memory,),
        )
    return await _held(state, person)


@router.delete("/v1/privacy")
async def forget_person(
    request: Request, caller: Authenticated, user: str | None = None
) -> dict[str, Any]:
    """Remove what a person wrote and voted, for good."""
    state = state_of(request)
    person = _not_operator(await person_of(state, caller, user))
    world = state.world
    gone = await forget(
        world.database,
        world.settings.data_dir,
        person.id,
        actor=person.id,
        memories=(world.chat.memory,),
    )
    return {"object": "thumbtune.forgotten", "removed": gone.removed, "adapters": gone.adapters}


async def _held(state: ApiState, person: Person) -> dict[str, Any]:
    held = await holding(state.world.database, person.id)
    return {
        "object": "thumbtune.privacy",
        "consent": held.consent,
        "replies": held.replies,
        "votes": held.votes,
        "corrections": held.corrections,
        "adapters": held.adapters,
    }


def _not_operator(person: Person) -> Person:
    if person.platform in CONSENT_PRESUMED:
        raise invalid(
            "without a key and a user you are the operator of this machine: name a user, or use "
            "`thumbtune data`",
            "user",
        )
    return person
