"""Put a backup in a database's place, and turn a plain database into an encrypted one.

Invariant: the file at the database's path is at every moment the whole old database or the whole
new one, and nobody else has it open while it is exchanged. What is replaced is removed only once
the new one is known to be good (encryption), or kept beside it (restore).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from core.errors import InvalidInput, StorageError, WrongKey
from core.files import fsync_path
from storage.connection import (
    Connection,
    check_whole,
    connect,
    is_plain,
    open_plain_for_encryption,
    open_unchecked,
    quoted,
)
from storage.copies import backups_of, copy_database
from storage.schema import check_schema

_WAIT_S = 1.0
_SHARED_LOCK = (510, 0x40000002)
"""Length and offset of the bytes that SQLite locks while a file is open (sqlite3's os_unix.c)."""


def restore(source: Path, target: Path, key: str | None = None) -> Path | None:
    """Put a backup in the place of a database; return where the replaced one lies now, if any.

    The backup is opened and checked whole first, and stays where it is. Raises InvalidInput,
    WrongKey, SchemaTooNew or StorageError with nothing changed; StorageError too while another
    process has the database open.
    """
    if not source.is_file():
        raise InvalidInput(f"{source}: no such backup")
    if target.exists() and source.samefile(target):
        raise InvalidInput(f"{source}: is the database itself; name a backup")
    verify_backup(source, key)
    fresh = target.with_name(f".{target.name}.{os.getpid()}.restore")
    fresh.unlink(missing_ok=True)
    try:
        copy_database(source, fresh, key)
        if not target.exists():
            fresh.rename(target)
            fsync_path(target.parent)
            return None
        with _held_alone(open_unchecked(target, key=key, busy_timeout_s=_WAIT_S)):
            return _exchange(fresh, target)
    finally:
        fresh.unlink(missing_ok=True)


def verify_backup(source: Path, key: str | None = None) -> None:
    """Check that a backup opens with this key, is whole, and is of a schema this version knows.

    Raises WrongKey, SchemaTooNew or StorageError.
    """
    with closing(connect(source, key=key)) as connection:
        check_schema(connection)
        check_whole(connection)
        if not connection.one("SELECT 1 FROM sqlite_master WHERE name = 'replies'"):
            raise StorageError(
                f"{source}: holds no Thumbtune tables; name a backup made by Thumbtune"
            )


def encrypt_database(path: Path, key: str) -> list[Path]:
    """Encrypt a plain database in place; return the plain backups that are left.

    The plain file is removed only once the encrypted one was opened with the key and holds as many
    rows in every table. Not for a process that has the database open itself: the
    two SQLite libraries do not see each other's locks. Raises WrongKey if it is encrypted already,
    InvalidInput for an empty key, and StorageError while another process has it open.
    """
    if not key:
        raise InvalidInput("no key: set THUMBTUNE_DB_KEY to the key the database shall have")
    if not path.is_file():
        raise InvalidInput(f"{path}: there is no database yet; with a key set it is made encrypted")
    if not is_plain(path):
        raise WrongKey(f"{path}: is not a plain database; it seems to be encrypted already")
    fresh = path.with_name(f".{path.name}.{os.getpid()}.encrypted")
    fresh.unlink(missing_ok=True)
    try:
        with _held_alone(open_plain_for_encryption(path, busy_timeout_s=_WAIT_S)) as plain:
            check_whole(plain)
            _export(plain, fresh, key)
            _check_same(plain, fresh, key)
            fsync_path(fresh)
            fresh.replace(path)
            fsync_path(path.parent)
    finally:
        fresh.unlink(missing_ok=True)
    return [backup for backup in backups_of(path) if is_plain(backup)]


# -- private


@contextmanager
def _held_alone(connection: Connection) -> Iterator[Connection]:
    """Fold the log into the file and keep everybody else out of it until the end of the block."""
    try:
        if not _take(connection):
            raise StorageError(
                f"{connection.path}: is open in another process (`thumbtune up`?); stop it first"
            )
        yield connection
    finally:
        connection.close()


def _take(connection: Connection) -> bool:
    """Leave WAL mode, which fails exactly when somebody else has the file open."""
    try:
        connection.value("PRAGMA locking_mode = EXCLUSIVE")
        connection.value("PRAGMA journal_mode = DELETE")
        connection.run("BEGIN EXCLUSIVE")
        connection.run("ROLLBACK")  # in this locking mode the lock itself stays
    except StorageError as error:
        if "another process" in str(error):
            return False
        return not _locked_by_somebody(connection.path)  # damaged, or of another key
    return True


def _locked_by_somebody(path: Path) -> bool:
    """Say whether another process holds SQLite's shared lock on a file that cannot be read."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system: it cannot be told
        return False
    with path.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, *_SHARED_LOCK)
        except OSError:
            return True
    return False


def _exchange(fresh: Path, target: Path) -> Path:
    """Keep the old file under a dated name, then let the new one take its name."""
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    kept = target.with_name(f"{target.name}.replaced-{moment}")
    os.link(target, kept)
    log = Path(f"{target}-wal")
    if log.exists():  # only a damaged file still has one, and it belongs to it
        log.rename(f"{kept}-wal")
    Path(f"{target}-shm").unlink(missing_ok=True)  # an index of the log, made anew when needed
    fresh.replace(target)
    fsync_path(target.parent)
    return kept


def _export(plain: Connection, target: Path, key: str) -> None:
    version = plain.value("PRAGMA user_version")
    plain.run(f"ATTACH DATABASE ? AS fresh KEY {quoted(key)}", (str(target),))
    plain.value("SELECT sqlcipher_export('fresh')")
    plain.run(f"PRAGMA fresh.user_version = {version}")
    plain.run("DETACH DATABASE fresh")


def _check_same(plain: Connection, target: Path, key: str) -> None:
    with closing(connect(target, key=key)) as encrypted:
        check_whole(encrypted)
        if _counts(plain) != _counts(encrypted):
            raise StorageError(
                f"{plain.path}: the encrypted copy differs from it; nothing was changed, try again"
            )


def _counts(connection: Connection) -> dict[str, int]:
    names = connection.all("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    return {
        row["name"]: connection.value(f'SELECT count(*) FROM "{row["name"]}"')  # noqa: S608 # a table's own name
        for row in names
    }
