"""`PUT /v1/adapters/{name}`: a published adapter from another machine, for administrators.

Invariant: an adapter appears whole and verified, under the name its manifest has, or not at all; a
name that is there keeps its content. Its files are the three that an adapter has, and never opened
but as JSON and safetensors.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.datastructures import FormData, UploadFile

from bot.api.caller import Administrator
from bot.api.errors import ApiError, invalid
from bot.api.lora import ADAPTERS_DIR
from bot.api.state import ApiState, state_of
from core.errors import AdapterRefused, AdaptersFull, Conflict
from core.files import free_bytes, publish_directory
from core.manifest import (
    CONTENT_FILES,
    MANIFEST,
    Manifest,
    parse_adapter_name,
    read_manifest,
    verify_content,
)

FILES = (MANIFEST, *CONTENT_FILES)
MAX_TEXT_BYTES = 1 << 20
"""A manifest or a configuration is far smaller than this."""
router = APIRouter()


@router.put("/v1/adapters/{name}")
async def upload(request: Request, name: str, caller: Administrator) -> JSONResponse:
    """Verify an adapter, publish it in the data directory, store it as a version, load it.

    201 if it is new here, 200 if it was there with this content.
    """
    state = state_of(request)
    scope, version = parse_adapter_name(name)
    target = state.world.settings.data_dir / ADAPTERS_DIR / scope / f"v{version}"
    async with request.form(max_files=len(FILES), max_fields=1) as form:
        parts = _parts(form)
        new = await asyncio.to_thread(_publish, target, name, parts)
    await _adopt(state, name, target, actor=f"api:{caller.name}", new=new)
    manifest = await asyncio.to_thread(read_manifest, target)
    return JSONResponse({"id": name, "sha256": manifest.sha256}, status_code=201 if new else 200)


def _parts(form: FormData) -> dict[str, UploadFile]:
    """Return the three files by name. Raises ApiError for anything else."""
    given = form.multi_items()
    parts = {name: part for name, part in given if isinstance(part, UploadFile)}
    if len(given) != len(FILES) or set(parts) != set(FILES):
        raise invalid(f"expected multipart/form-data with the files {', '.join(FILES)}")
    for name in (MANIFEST, CONTENT_FILES[0]):
        if (parts[name].size or 0) > MAX_TEXT_BYTES:
            raise invalid(f"{name} is larger than {MAX_TEXT_BYTES} bytes", name)
    return parts


def _publish(target: Path, name: str, parts: Mapping[str, UploadFile]) -> bool:
    """Put the files in place, verified; False if they are there already.

    Raises AdapterRefused, and Conflict where the name is there with another content.
    """
    if target.exists():
        there, sent = read_manifest(target), parts[MANIFEST].file.read()
        if there != _manifest(sent):
            raise Conflict(
                f"adapter {name} is here with another content; publish under a new number"
            )
        return False
    needed = 2 * sum(part.size or 0 for part in parts.values())
    if free_bytes(target.parents[2]) < needed:
        raise ApiError(507, "there is no room for the adapter here", kind="server_error")

    def fill(directory: Path) -> None:
        for file, part in parts.items():
            with (directory / file).open("wb") as copy:
                shutil.copyfileobj(part.file, copy)
        manifest = read_manifest(directory)
        if manifest.name != name:
            raise AdapterRefused(f"the manifest is of {manifest.name!r}, not of {name}")
        verify_content(directory, manifest)

    try:
        publish_directory(target, fill)
    except FileExistsError:
        raise Conflict(f"adapter {name} is just being published here") from None
    return True


def _manifest(text: bytes) -> Manifest:
    try:
        return Manifest.model_validate_json(text)
    except ValueError:
        raise AdapterRefused(f"{MANIFEST} is no manifest") from None


async def _adopt(state: ApiState, name: str, target: Path, *, actor: str, new: bool) -> None:
    """Make it a version and resident; one that cannot be loaded is not kept."""
    try:
        await state.world.registry.adopt(name, target, actor=actor)
    except AdaptersFull:
        return  # it is kept, and loaded by the first request that names it
    except AdapterRefused:
        if new:
            await asyncio.to_thread(shutil.rmtree, target, ignore_errors=True)
        raise
