"""The manifest of a published adapter: its name, its base, its content.

`manifest.json` lies beside PEFT's own `adapter_config.json` and `adapter_model.safetensors`. It is
written last, so a directory with a manifest is complete. The adapter's identity is `sha256`: over
the files' own SHA-256s (see `files.sha256_of_files`). Format: docs/adapter-manifest.md.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from core.errors import AdapterRefused, InvalidInput
from core.files import sha256_file, sha256_of_files

MANIFEST = "manifest.json"
WEIGHTS = "adapter_model.safetensors"
PEFT_CONFIG = "adapter_config.json"
CONTENT_FILES = (PEFT_CONFIG, WEIGHTS)
_LIMIT_BYTES = {MANIFEST: 1 << 20, PEFT_CONFIG: 1 << 20}

_SCOPE = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_NAME = re.compile(r"(?P<scope>[a-z0-9][a-z0-9_-]{0,63})@v(?P<version>[1-9][0-9]{0,8})")


def check_scope(scope: str) -> str:
    """Return the scope's name unchanged, or raise InvalidInput if it could not name a directory."""
    if not _SCOPE.fullmatch(scope):
        raise InvalidInput(
            f"scope {scope!r}: expected 1 to 64 of a-z, 0-9, '-' and '_', "
            "not starting with '-' or '_'"
        )
    return scope


def adapter_name(scope: str, version: int) -> str:
    """Return the immutable name `<scope>@v<version>`."""
    return f"{check_scope(scope)}@v{version}"


def parse_adapter_name(name: str) -> tuple[str, int]:
    """Return (scope, version) of `<scope>@v<N>`; raises InvalidInput."""
    match = _NAME.fullmatch(name)
    if not match:
        raise InvalidInput(f"adapter {name!r}: expected <scope>@v<number>, for example console@v3")
    return match["scope"], int(match["version"])


class Manifest(BaseModel):
    """What a published adapter says of itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    name: str
    base_model: str
    base_sha256: str
    run_id: str
    recipe: str
    created_at: str
    files: dict[str, str]
    sha256: str


def describe_directory(
    directory: Path,
    *,
    name: str,
    base_model: str,
    base_sha256: str,
    run_id: str,
    recipe: str,
    created_at: str,
) -> Manifest:
    """Hash the content files of an adapter directory into its manifest."""
    parse_adapter_name(name)
    files = {file: sha256_file(directory / file) for file in CONTENT_FILES}
    return Manifest(
        name=name,
        base_model=base_model,
        base_sha256=base_sha256,
        run_id=run_id,
        recipe=recipe,
        created_at=created_at,
        files=files,
        sha256=sha256_of_files(files),
    )


def read_manifest(directory: Path) -> Manifest:
    """Read and check the shape of `manifest.json`; raises AdapterRefused with the reason."""
    path = directory / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise AdapterRefused(
            f"{directory}: no {MANIFEST}; the adapter was never completely published"
        ) from None
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"]) or "file"
        raise AdapterRefused(f"{path}: {where}: {fault['msg']}") from None


def verify_published(directory: Path, *, name: str, base_sha256: str) -> Manifest:
    """Check place, manifest, base and every byte of a published adapter; raises AdapterRefused.

    What the tensors hold is not looked at.
    """
    if directory.is_symlink():
        raise AdapterRefused(f"{directory}: is a symbolic link; expected the published directory")
    if not directory.is_dir():
        raise AdapterRefused(f"{directory}: no such directory")
    for file, limit in _LIMIT_BYTES.items():
        path = directory / file
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise AdapterRefused(f"{path}: not a plain file")
        if path.exists() and path.stat().st_size > limit:
            raise AdapterRefused(f"{path}: {path.stat().st_size} bytes, expected at most {limit}")
    manifest = read_manifest(directory)
    if manifest.name != name:
        raise AdapterRefused(f"{directory}: the manifest says {manifest.name!r}, expected {name!r}")
    if manifest.base_sha256 != base_sha256:
        raise AdapterRefused(
            f"{directory}: trained on base model {manifest.base_model} "
            f"({manifest.base_sha256[:12]}…), "
            f"but the running base is {base_sha256[:12]}…; train again on this base"
        )
    verify_content(directory, manifest)
    return manifest


def verify_content(directory: Path, manifest: Manifest) -> None:
    """Check every byte of the adapter against its manifest; raises AdapterRefused."""
    if set(manifest.files) != set(CONTENT_FILES):
        raise AdapterRefused(
            f"{directory}: the manifest lists {sorted(manifest.files)}, "
            f"expected {sorted(CONTENT_FILES)}"
        )
    extra = {path.name for path in directory.iterdir()} - set(CONTENT_FILES) - {MANIFEST}
    if extra:
        raise AdapterRefused(
            f"{directory}: unexpected files {sorted(extra)}; an adapter holds "
            f"{', '.join(CONTENT_FILES)} and {MANIFEST} only (pickled weights are never read)"
        )
    for name, expected in manifest.files.items():
        path = directory / name
        if not path.is_file() or path.is_symlink():
            raise AdapterRefused(f"{path}: missing, or not a plain file")
        actual = sha256_file(path)
        if actual != expected:
            raise AdapterRefused(
                f"{path}: SHA-256 is {actual}, the manifest says {expected}: corrupt or altered"
            )
    if sha256_of_files(manifest.files) != manifest.sha256:
        raise AdapterRefused(f"{directory}: the manifest's own sha256 does not fit its files")
