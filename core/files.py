"""Durable files: hash them, write them whole, publish a directory at once or not at all.

A directory is published as: temporary directory beside the target, fsync of every file, rename,
fsync of the parent. Whoever sees the target sees all of it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_CHUNK_BYTES = 1 << 20


def sha256_file(path: Path) -> str:
    """Return the lower-case hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of_files(digests: dict[str, str]) -> str:
    """Return one SHA-256 for a set of named files: over the sorted lines `<sha256>  <name>\\n`."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def fsync_path(path: Path) -> None:
    """Flush a file or a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, text: str) -> None:
    """Replace a text file so that a reader sees the old or the new content, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    fsync_path(path.parent)


def publish_directory(target: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write a temporary directory beside `target`, then rename it into place.

    Raises FileExistsError if the target is already there (a published directory is immutable). A
    crash leaves at most a hidden `.NAME.*.tmp` directory, which `sweep_temporary` removes.
    """
    if target.exists():
        raise FileExistsError(f"{target} is already published and immutable")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        fill(temporary)
        for path in sorted(temporary.rglob("*")):
            fsync_path(path)
        fsync_path(temporary)
        temporary.rename(target)
        fsync_path(target.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def sweep_temporary(parent: Path) -> list[Path]:
    """Remove what crashed publications left under `parent`; return the paths removed.

    A temporary directory whose writer (the process id in its name) still lives is left alone.
    """
    removed = []
    for path in parent.glob(".*.tmp") if parent.exists() else ():
        owner = path.name.split(".")[-2]
        if owner.isdigit() and process_alive(int(owner)):
            continue
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        removed.append(path)
    return removed


def process_alive(pid: int) -> bool:
    """Say whether a process with this id runs on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def free_bytes(path: Path) -> int:
    """Return the bytes an ordinary user may still write on the file system that holds `path`."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


@contextmanager
def advisory_lock(path: Path) -> Iterator[bool]:
    """Hold a lock file for the block; yields False at once if another process holds it.

    The kernel lets go of it when the process ends, however it ends.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
