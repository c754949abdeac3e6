"""`GET /v1/models`: which names a request may say, and which adapter each one is.

`live` follows the scope's pointer (and its canary); `base` and a version are exactly that. A user's
key sees the versions of its own scope that were not refused, an administrator's sees all.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from bot.api.caller import Authenticated, Caller
from bot.api.errors import ApiError
from bot.api.state import ApiState, state_of
from core.generation import BASE
from core.records import AdapterRecord, parse_time

LIVE = "live"
router = APIRouter()


@router.get("/v1/models")
async def list_models(request: Request, caller: Authenticated) -> dict[str, Any]:
    """List what may be asked."""
    state = state_of(request)
    versions = [_card(record) for record in await _versions(state, caller)]
    return {"object": "list", "data": [_card(LIVE), _base_card(state), *versions]}


@router.get("/v1/models/{model:path}")
async def show_model(model: str, request: Request, caller: Authenticated) -> dict[str, Any]:
    """Show one model."""
    if model == BASE:
        return _base_card(state_of(request))
    if model == LIVE:
        return _card(model)
    return _card(await _version(state_of(request), caller, model))


async def adapter_of(state: ApiState, caller: Caller, model: str) -> str | None:
    """Return the adapter that a model name stands for; None is whoever speaks in the scope.

    Raises ApiError with 404 for a name there is not.
    """
    if model == LIVE:
        return None
    return BASE if model == BASE else (await _version(state, caller, model)).name


async def _versions(state: ApiState, caller: Caller) -> list[AdapterRecord]:
    scope = None if caller.admin else caller.scope
    found = await state.world.database.run(lambda db: db.adapters.list(scope))
    base = state.world.base.sha256
    fitting = [one for one in found if one.base_sha256 == base]
    return [one for one in fitting if caller.admin or one.state != "refused"]


async def _version(state: ApiState, caller: Caller, name: str) -> AdapterRecord:
    for record in await _versions(state, caller):
        if record.name == name:
            return record
    raise ApiError(
        404,
        f"The model '{name[:100]}' does not exist or you do not have access to it; "
        "GET /v1/models lists those that do",
        param="model",
        code="model_not_found",
    )


def _base_card(state: ApiState) -> dict[str, Any]:
    """Describe the base with its identity, so that another machine can tell what fits it."""
    return {**_card(BASE), "root": state.world.base.name, "sha256": state.world.base.sha256}


def _card(model: AdapterRecord | str) -> dict[str, Any]:
    if isinstance(model, str):
        return {"id": model, "object": "model", "created": 0, "owned_by": "thumbtune"}
    return {
        "id": model.name,
        "object": "model",
        "created": int(parse_time(model.created_at).timestamp()),
        "owned_by": "thumbtune",
        "parent": BASE,
        "state": model.state,
    }
