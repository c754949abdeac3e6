"""Base models that were sent to a node: kept there by their hash, so that each is sent once.

A base is no secret and no person's words, so it outlives runs; one that no run used for a month
makes room when another arrives.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path

from core.basemodel import identify_base
from core.errors import ModelError
from core.files import publish_directory, sweep_temporary
from trainer.launchers.cluster.order import private_home
from trainer.launchers.cluster.parcels import Part, Read, fetch

_UNUSED_S = 30 * 24 * 3600.0


def base_path(sha256: str) -> Path:
    """Return where a base lies on this node if it was sent."""
    return private_home() / "bases" / sha256


def kept_base(sha256: str) -> Path | None:
    """Return where a base lies on this node, every byte as its hash says; None if it does not."""
    target = base_path(sha256)
    try:
        found = identify_base("", target, private_home()).sha256
    except ModelError:
        return None
    if found != sha256:
        return None
    os.utime(target)
    return target


def keep_base(sha256: str, arrived: Path) -> None:
    """Move a base that has arrived whole to where it is kept."""
    target = _room_for(sha256)
    if not target.exists():
        arrived.rename(target)


def fetch_base(sha256: str, parts: tuple[Part, ...], read: Read) -> Path:
    """Return where a base lies on this node, after fetching it if need be. Raises TrainingError."""
    if (there := kept_base(sha256)) is not None:
        return there
    target = _room_for(sha256)
    with contextlib.suppress(FileExistsError):  # another run brought it at the same time
        publish_directory(target, lambda path: fetch(path, parts, read))
    return target


def _room_for(sha256: str) -> Path:
    """Return a base's place, without a damaged one there and without those long unused."""
    bases = base_path(sha256).parent
    bases.mkdir(exist_ok=True)
    sweep_temporary(bases)
    long_ago = time.time() - _UNUSED_S
    for path in bases.glob("[!.]*"):
        if path.name == sha256 or path.stat().st_mtime < long_ago:
            shutil.rmtree(path, ignore_errors=True)
    return bases / sha256
