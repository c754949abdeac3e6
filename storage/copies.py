"""Whole copies of a database: online backups, under a temporary name until they are complete.

A copy is encrypted with the same key as its source, or plain like it.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from core.errors import InvalidInput
from core.files import fsync_path
from storage.connection import Connection, open_unchecked

BACKUP_DIRECTORY = "backups"


def copy_database(source: Path, target: Path, key: str | None) -> None:
    """Copy a database that may be in use to a new file. Raises InvalidInput if `target` exists."""
    if target.exists():
        raise InvalidInput(f"{target}: already exists; name a new file for the copy")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        _copy(source, temporary, key)
        fsync_path(temporary)
        temporary.rename(target)
        fsync_path(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def automatic_backup(path: Path, key: str | None, schema: int, keep: int) -> Path:
    """Back a database up before its schema changes; keep the newest `keep` such backups."""
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    target = path.parent / BACKUP_DIRECTORY / f"{path.name}.{moment}.schema{schema}.db"
    copy_database(path, target, key)
    for old in backups_of(path)[:-keep]:
        old.unlink(missing_ok=True)
    return target


def backups_of(path: Path) -> list[Path]:
    """Return the automatic backups of a database, oldest first."""
    return sorted((path.parent / BACKUP_DIRECTORY).glob(f"{path.name}.*.schema*.db"))


def _copy(source: Path, target: Path, key: str | None) -> None:
    reader: Connection = open_unchecked(source, key=key)
    writer: Connection = open_unchecked(target, key=key)
    try:
        with reader.plain_errors():
            reader.raw.backup(writer.raw)
    finally:
        writer.close()
        reader.close()
