"""A published adapter directory as it lies on the disk: whose it is, whether every byte is there.

Looks at place, manifest, base and hashes and reads no tensor, so whoever sends an adapter elsewhere
needs no torch. What the tensors must be is checked where they are used (serving.adapters).
"""

from __future__ import annotations

from pathlib import Path

from core.errors import AdapterRefused
from core.manifest import MANIFEST, PEFT_CONFIG, Manifest, read_manifest, verify_content

_LIMIT_BYTES = {MANIFEST: 1 << 20, PEFT_CONFIG: 1 << 20}


def check_published(directory: Path, name: str, base_sha256: str) -> Manifest:
    """Check place, manifest and content; return the manifest. Raises AdapterRefused."""
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
