"""Who speaks: the key a request brings, and the person it speaks for.

Invariant: once a key was ever made, or where others than this machine can reach the address, no
request goes without a key that is valid now. Without keys, whoever is on this machine is its
operator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from bot.api.errors import ApiError, invalid
from bot.api.state import ApiState, state_of
from bot.chat import storable
from bot.feedback import CONSENT_PRESUMED
from bot.keys import DEFAULT_API_SCOPE, LOCAL, hash_key
from core.records import Person
from storage.database import Database

PLATFORM = "api"
MAX_USER_CHARS = 256


@dataclass(frozen=True, slots=True)
class Caller:
    """What a request may do. `name` is the key's; `keyless` is the operator on this machine."""

    name: str
    admin: bool
    scope: str
    consented: bool
    keyless: bool = False


OPERATOR = Caller(LOCAL, admin=True, scope=DEFAULT_API_SCOPE, consented=False, keyless=True)


async def authenticated(request: Request) -> Caller:
    """Return who speaks, or refuse with 401."""
    state = state_of(request)
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    given = secret.strip() if scheme.lower() == "bearer" else ""
    key = await state.world.database.run(lambda db: db.keys.find(hash_key(given)))
    if key:
        return Caller(key.name, key.role == "admin", key.scope, key.consented)
    if await keys_demanded(state):
        raise ApiError(
            401,
            "Incorrect API key provided; make one with `thumbtune keys new NAME`"
            if given
            else "You didn't provide an API key; send it as `Authorization: Bearer KEY`",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
    return OPERATOR


async def keys_demanded(state: ApiState) -> bool:
    """Say whether nobody goes without a key."""
    return not state.private or await state.world.database.run(lambda db: db.keys.any())


async def administrator(caller: Annotated[Caller, Depends(authenticated)]) -> Caller:
    """Return who speaks if they may administer, else refuse with 403."""
    if not caller.admin:
        raise ApiError(403, "this needs an administrator's key: `thumbtune keys new NAME --admin`")
    return caller


Authenticated = Annotated[Caller, Depends(authenticated)]
Administrator = Annotated[Caller, Depends(administrator)]


async def person_of(state: ApiState, caller: Caller, user: str | None) -> Person:
    """Return the person a request speaks for: its `user` under this key, else the key's holder.

    Their consent is unknown until they gave it, unless the operator stated it with the key.
    """
    name = storable(user or "").strip()
    if len(name) > MAX_USER_CHARS:
        raise invalid(f"user has {len(name)} characters and {MAX_USER_CHARS} are allowed", "user")

    def known(db: Database) -> Person:
        if caller.keyless and not name:
            return db.people.ensure("console", "operator", display_name="operator", consent="given")
        return db.people.ensure(
            PLATFORM,
            f"{caller.name}/{name}" if name else caller.name,
            display_name=name or caller.name,
            consent="given" if caller.consented else None,
        )

    return await state.world.database.run(known)


def may_keep(person: Person) -> bool:
    """Say whether what a person writes may be stored."""
    return person.consent == "given" or person.platform in CONSENT_PRESUMED
