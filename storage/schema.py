"""Bring a database to this version's schema, after a backup; refuse one from a later version.

Invariant: all pending steps and their records commit in one transaction that holds the write lock,
so two processes that open at once migrate once, and a kill leaves the old schema or the new one.
"""

from __future__ import annotations

from pathlib import Path

from core.errors import SchemaTooNew, StorageError
from storage.connection import Connection
from storage.copies import automatic_backup, backups_of
from storage.migrations import migrations
from storage.sqlite import sqlite_utils

_OURS = "_sqlite_migrations"


def schema_version() -> int:
    """Return the number of the schema this version writes."""
    return len(_known())


def migrate(connection: Connection, *, key: str | None, keep_backups: int) -> Path | None:
    """Apply what is pending; return the backup made before, or None if none was needed.

    Raises SchemaTooNew, or StorageError if the file belongs to another program.
    """
    check_schema(connection)
    if not _pending(connection):
        return None
    with connection.transaction():
        if not _pending(connection):  # another process migrated while this one waited
            return None
        version = connection.value("PRAGMA user_version")
        backup = automatic_backup(connection.path, key, version, keep_backups) if version else None
        migrations.apply(_facade(connection))
        connection.run(f"PRAGMA user_version = {schema_version()}")
    return backup


def check_schema(connection: Connection) -> None:
    """Check that this version can read the database. Raises SchemaTooNew or StorageError."""
    names = {
        row["name"] for row in connection.all("SELECT name FROM sqlite_master WHERE type = 'table'")
    }
    if names and _OURS not in names:
        raise StorageError(
            f"{connection.path}: another program's database (with {', '.join(sorted(names)[:3])}); "
            "set storage.file to another name"
        )
    unknown = _applied(connection) - _known()
    version = connection.value("PRAGMA user_version")
    if not unknown and version <= schema_version():
        return
    backups = backups_of(connection.path)
    advice = f"restore the older {backups[-1]}" if backups else "restore a backup made before"
    raise SchemaTooNew(
        f"{connection.path}: written by a newer Thumbtune (schema {version}, this one knows "
        f"{schema_version()}); upgrade Thumbtune, or {advice} with `thumbtune restore FILE`"
    )


# -- private


def _facade(connection: Connection) -> sqlite_utils.Database:
    return sqlite_utils.Database(connection.raw, execute_plugins=False)


def _known() -> set[str]:
    return {migration.name for migration in migrations._migrations}


def _applied(connection: Connection) -> set[str]:
    return {migration.name for migration in migrations.applied(_facade(connection))}


def _pending(connection: Connection) -> bool:
    return bool(migrations.pending(_facade(connection)))
