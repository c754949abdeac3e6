"""One factory for connections: the standard sqlite3, or SQLCipher when a key is given.

Invariant: a connection handed out has been read from with the right key, is in WAL mode with
`synchronous=FULL` (a commit that returned survives power loss), enforces foreign keys and zeroes
what it deletes. Every driver error leaves here as one of `core.errors`. Knows no tables.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.errors import NotFound, StorageError, WrongKey

PLAIN_HEADER = b"SQLite format 3\x00"
CACHE_KIB = 4000  # SQLite's own 2,000 do not hold the people of a big server
QUICK_CHECK_LIMIT_BYTES = 16 << 20
"""Up to this size the whole file is checked at each open (a few ms a MiB); above it only what
SQLite itself compares: the first page (and its key), and the page count against the file's size.
"""

_SAMPLE_BYTES = 4096
_RANDOM_DISTINCT_BYTES = 200
"""4096 random bytes hold about 256 distinct values, text under 100."""

Row = dict[str, Any]
Parameters = Sequence[Any] | Mapping[str, Any]


class Connection:
    """An open database, used by one thread. Rows come back as dictionaries."""

    def __init__(self, raw: sqlite3.Connection, path: Path, error: type[Exception]) -> None:
        self.raw = raw
        self.path = path
        self._error = error

    # -- writing

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit all writes of the block together, or none; a block inside a block joins the outer
        one.

        The write lock is taken at the start, so what the block reads cannot change under it.
        """
        if self._in_transaction():
            yield
            return
        self.run("BEGIN IMMEDIATE")
        try:
            yield
            self.run("COMMIT")
        finally:
            if self._in_transaction():  # the block or the commit failed
                self.run("ROLLBACK")

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let the reads of the block see one state of the database; nobody is kept from writing."""
        if self._in_transaction():
            yield
            return
        self.run("BEGIN")
        try:
            yield
        finally:
            if self._in_transaction():  # some faults have ended it
                self.run("ROLLBACK")

    def run(self, sql: str, parameters: Parameters = ()) -> int:
        """Execute one statement; return how many rows it changed."""
        return self._execute(sql, parameters).rowcount

    # -- reading

    def all(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """Return every row."""
        return list(self.each(sql, parameters))

    def each(self, sql: str, parameters: Parameters = ()) -> Iterator[Row]:
        """Yield row by row, for results too large to hold twice; take them all before writing."""
        with self.plain_errors():
            cursor = self._execute(sql, parameters)
            names = [column[0] for column in cursor.description or ()]
            for values in cursor:
                yield dict(zip(names, values, strict=True))

    def one(self, sql: str, parameters: Parameters = ()) -> Row | None:
        """Return the first row, or None."""
        rows = self.all(sql, parameters)
        return rows[0] if rows else None

    def value(self, sql: str, parameters: Parameters = ()) -> Any:
        """Return the first column of the first row, or None."""
        row = self.one(sql, parameters)
        return next(iter(row.values())) if row else None

    def close(self) -> None:
        """Close; the write-ahead log is folded into the file if nobody else has it open."""
        self.raw.close()

    def _in_transaction(self) -> bool:
        return self.raw.in_transaction

    def _execute(self, sql: str, parameters: Parameters) -> sqlite3.Cursor:
        with self.plain_errors():
            try:
                return self.raw.execute(sql, parameters)
            except UnicodeEncodeError:  # a lone surrogate is no character; it is stored as U+FFFD
                return self.raw.execute(sql, _storable(parameters))

    @contextmanager
    def plain_errors(self) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            raise explain(error, self.path) from error


def connect(path: Path, *, key: str | None = None, busy_timeout_s: float = 10.0) -> Connection:
    """Open a database file (made if it does not exist) and check that it is whole.

    Raises WrongKey if the key is missing, wrong or not needed, StorageError if the file is damaged,
    is no database or cannot be read.
    """
    existed = path.exists()
    if existed:
        _check_kind(path, key)
    connection = open_unchecked(path, key=key, busy_timeout_s=busy_timeout_s)
    try:
        _check_readable(connection, keyed=key is not None)
        _configure(connection)
        if existed and path.stat().st_size <= QUICK_CHECK_LIMIT_BYTES:
            check_whole(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def open_unchecked(path: Path, *, key: str | None, busy_timeout_s: float = 10.0) -> Connection:
    """Open without looking at the content. For this package's own conversions only."""
    connection = _open(_sqlcipher() if key else sqlite3, path, busy_timeout_s)
    if key:
        connection.run("PRAGMA cipher_log_level = NONE")  # a wrong key raises; stderr stays clean
        connection.run(f"PRAGMA key = {quoted(key)}")
    return connection


def open_plain_for_encryption(path: Path, *, busy_timeout_s: float) -> Connection:
    """Open a plain database with SQLCipher, which alone can export it encrypted."""
    return _open(_sqlcipher(), path, busy_timeout_s)


def check_whole(connection: Connection) -> None:
    """Check the structure of every page. Raises StorageError naming the first fault."""
    verdict = connection.value("PRAGMA quick_check(1)")
    if verdict != "ok":
        raise _damaged(connection.path, str(verdict))


def quoted(text: str) -> str:
    """Quote text as an SQL literal, where parameters are not allowed (PRAGMA key)."""
    return "'" + text.replace("'", "''") + "'"


def is_plain(path: Path) -> bool:
    """Say whether the file begins as an unencrypted SQLite database does."""
    with path.open("rb") as file:
        return file.read(len(PLAIN_HEADER)) == PLAIN_HEADER


def explain(error: Exception, path: Path) -> Exception:
    """Turn a driver's error into one of ours, with what to do."""
    text = str(error)
    if "locked" in text or "busy" in text:
        return StorageError(
            f"{path}: another process is writing for too long; try again in a moment"
        )
    if "malformed" in text or "not a database" in text or "corrupt" in text:
        return _damaged(path, text)
    if "is full" in text:
        return StorageError(f"{path}: the disk is full; free some space, nothing was stored")
    if "readonly" in text:
        return StorageError(
            f"{path}: may only be read; check the permissions of file and directory"
        )
    if "FOREIGN KEY" in text:
        return NotFound(f"{path}: the row refers to something that does not exist (any more)")
    return StorageError(f"{path}: {text}")


# -- private


def _open(driver: Any, path: Path, busy_timeout_s: float) -> Connection:
    try:
        raw = driver.connect(str(path), timeout=busy_timeout_s, isolation_level=None)
    except driver.Error as error:
        raise StorageError(
            f"{path}: cannot be opened ({error}); check that its directory is there and writable"
        ) from error
    return Connection(raw, path, driver.Error)


def _sqlcipher() -> Any:
    try:
        import sqlcipher3
    except ImportError:
        raise StorageError(
            "a database key is set, but SQLCipher is not installed; "
            "run: pip install 'thumbtune[encrypted]'"
        ) from None
    return sqlcipher3


def _check_kind(path: Path, key: str | None) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(_SAMPLE_BYTES)
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be read ({error.strerror}); check its permissions"
        ) from None
    if start.startswith(PLAIN_HEADER):
        if key:
            raise WrongKey(
                f"{path}: a key is set, but this database is not encrypted; encrypt it with "
                "`thumbtune data encrypt`, or unset THUMBTUNE_DB_KEY"
            )
        return
    looks_encrypted = len(start) == _SAMPLE_BYTES and len(set(start)) > _RANDOM_DISTINCT_BYTES
    if not looks_encrypted:
        raise _damaged(path, "file is not a database" if start else "file is empty")
    if not key:
        raise WrongKey(
            f"{path}: this database is encrypted and no key is set; set THUMBTUNE_DB_KEY to its key"
        )


def _check_readable(connection: Connection, *, keyed: bool) -> None:
    try:
        connection.value("SELECT count(*) FROM sqlite_master")
    except StorageError as error:
        if keyed and "not a database" in str(error):
            raise WrongKey(
                f"{connection.path}: the key does not open this database (or its first page is "
                "damaged); check THUMBTUNE_DB_KEY"
            ) from error
        raise


def _configure(connection: Connection) -> None:
    connection.run("PRAGMA foreign_keys = ON")
    connection.value("PRAGMA journal_mode = WAL")
    connection.run("PRAGMA synchronous = FULL")
    connection.value("PRAGMA secure_delete = ON")
    connection.run(f"PRAGMA cache_size = -{CACHE_KIB}")


def _damaged(path: Path, fault: str) -> StorageError:
    backups = sorted((path.parent / "backups").glob(f"{path.name}.*.db"))
    named = str(backups[-1]) if backups else "FILE"
    return StorageError(
        f"{path}: the file is truncated, damaged or no database ({fault}); restore a backup with "
        f"`thumbtune restore {named}`, or move the file away to start afresh"
    )


def _storable(parameters: Parameters) -> Parameters:
    if isinstance(parameters, Mapping):
        return {name: _character(value) for name, value in parameters.items()}
    return [_character(value) for value in parameters]


def _character(value: Any) -> Any:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
