"""`/v1/load_lora_adapter` and `/v1/unload_lora_adapter`, as vLLM has them, for administrators.

Only a directory inside the data directory's `adapters/` is ever looked at, wherever links lead; it
must be a published adapter, and everything in it is checked before any of it is used.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse

from bot.api.caller import Administrator
from bot.api.errors import ApiError, without_places
from bot.api.schema import Strict, read
from bot.api.state import ApiState, state_of
from core.errors import AdapterRefused, InvalidInput, UnknownAdapter

ADAPTERS_DIR = "adapters"
"""Where in the data directory versions lie."""
router = APIRouter()


class LoadRequest(Strict):
    """vLLM's body; its other fields mean nothing here."""

    lora_name: str = ""
    lora_path: str = ""


class UnloadRequest(Strict):
    """vLLM's body."""

    lora_name: str = ""


@router.post("/v1/load_lora_adapter")
async def load(request: Request, caller: Administrator) -> PlainTextResponse:
    """Verify an adapter, store it as a version if it is new, and make it resident."""
    state = state_of(request)
    asked = await read(request, LoadRequest)
    name, world = asked.lora_name, state.world
    if not name or not asked.lora_path:
        raise _unusable("Both 'lora_name' and 'lora_path' must be provided.")
    if name in world.engine.stats().adapters:
        raise _unusable(f"The lora adapter '{name}' has already been loaded.")
    directory = _confined(state, name, asked.lora_path)
    try:
        await world.registry.adopt(name, directory, actor=f"api:{caller.name}")
    except (AdapterRefused, InvalidInput) as error:
        shown = without_places(str(error), world.settings.data_dir)
        raise _unusable(f"Loading lora {name[:100]} failed: {shown}") from None
    return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")


@router.post("/v1/unload_lora_adapter")
async def unload(request: Request, caller: Administrator) -> PlainTextResponse:
    """Free an adapter's place once its last running reply has ended.

    It stays a version: the next request that names it loads it again.
    """
    state = state_of(request)
    name = (await read(request, UnloadRequest)).lora_name
    if not name:
        raise _unusable("'lora_name' needs to be provided to unload a LoRA adapter.")
    try:
        await state.world.engine.unload(name)
    except UnknownAdapter:
        raise _missing(f"The lora adapter '{name[:100]}' cannot be found.") from None
    return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")


def _confined(state: ApiState, name: str, text: str) -> Path:
    """Return the directory a path leads to. Raises ApiError if it is outside, or nothing.

    Both are told in the same words, so that nobody learns what else is on this machine.
    """
    root = (state.world.settings.data_dir / ADAPTERS_DIR).resolve()
    try:
        directory = (root / text).resolve(strict=True)
        inside = directory.is_dir() and directory != root and directory.is_relative_to(root)
    except (OSError, ValueError, RuntimeError):
        inside = False
    if not inside:
        raise _missing(
            f"Loading lora {name[:100]} failed: No adapter found for {text[:200]}; expected a "
            f"directory inside {ADAPTERS_DIR}/ of the data directory"
        )
    return directory


def _unusable(message: str) -> ApiError:
    return ApiError(400, message, kind="InvalidUserInput", code=400)


def _missing(message: str) -> ApiError:
    return ApiError(404, message, kind="NotFoundError", code=404)
