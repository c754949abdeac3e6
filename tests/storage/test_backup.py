"""Backups, restore and encryption: the old database or the new one, never neither."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core.errors import InvalidInput, SchemaTooNew, StorageError, WrongKey
from storage.backup import encrypt_database, restore
from storage.database import Database

KEY = "quote ' and space"


def scopes(path: Path, key: str | None = None) -> list[str]:
    with Database(path, key=key) as db:
        return [scope.name for scope in db.scopes.list()]


def fill(path: Path, *names: str, key: str | None = None) -> Path:
    with Database(path, key=key) as db:
        for name in names:
            db.scopes.ensure(name)
    return path


@contextmanager
def open_elsewhere(path: Path) -> Iterator[None]:
    """Let another process have the database open."""
    script = f"""
        from pathlib import Path
        from storage.database import Database
        with Database(Path({str(path)!r})) as db:
            print("open", flush=True)
            input()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "open\n"
        yield
        other.communicate("\n")


@pytest.mark.parametrize("key", [None, KEY])
def test_a_backup_of_a_database_in_use_restores(path: Path, key: str | None) -> None:
    """Copied while open, restored over a later state, with the later one kept beside it."""
    copy = path.with_name("copy.db")
    with Database(path, key=key) as db:
        db.scopes.ensure("before")
        assert db.backup(copy) == copy
        db.scopes.ensure("later")
    kept = restore(copy, path, key)
    assert kept is not None
    assert scopes(path, key) == ["before"] and scopes(kept, key) == ["before", "later"]
    assert copy.exists() and not list(path.parent.glob(".*"))


def test_an_encrypted_backup_needs_the_key(path: Path) -> None:
    """A backup is as closed as its database; restoring it without the key changes nothing."""
    copy = path.with_name("copy.db")
    with Database(path, key=KEY) as db:
        db.backup(copy)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        sqlite3.connect(copy).execute("SELECT * FROM people")
    with pytest.raises(WrongKey, match="no key is set"):
        restore(copy, path)
    assert scopes(path, KEY) == []


def test_a_backup_never_overwrites(path: Path) -> None:
    """A file that exists is left alone."""
    with Database(path) as db, pytest.raises(InvalidInput, match="already exists"):
        db.backup(path)


def test_restoring_where_nothing_is(path: Path, tmp_path: Path) -> None:
    """On a new machine there is nothing to keep."""
    copy = fill(path.with_name("copy.db"), "console")
    assert restore(copy, tmp_path / "new.db") is None
    assert scopes(tmp_path / "new.db") == ["console"]


def test_a_bad_backup_changes_nothing(path: Path) -> None:
    """A truncated, foreign, newer or missing backup is refused, and the database is as it was."""
    fill(path, "console")
    copy = fill(path.with_name("copy.db"), "other")
    newer = fill(path.with_name("newer.db"))
    with sqlite3.connect(newer) as raw:
        raw.execute("PRAGMA user_version = 99")
    raw.close()
    with copy.open("r+b") as file:
        file.truncate(9000)
    with pytest.raises(StorageError, match="truncated"):
        restore(copy, path)
    with pytest.raises(SchemaTooNew):
        restore(newer, path)
    with pytest.raises(InvalidInput, match="no such backup"):
        restore(path.with_name("missing.db"), path)
    with pytest.raises(InvalidInput, match="is the database itself"):
        restore(path, path)
    assert scopes(path) == ["console"]


@pytest.mark.parametrize("damaged", [False, True])
def test_a_database_in_use_is_not_replaced(path: Path, damaged: bool) -> None:
    """While another process has it open, restore and encryption are refused."""
    copy = fill(path.with_name("copy.db"), "copy")
    fill(path, "console")
    with open_elsewhere(path):
        if damaged:
            path.write_bytes(b"rubbish" * 1000)
        with pytest.raises(StorageError, match="is open in another process"):
            restore(copy, path)
    assert restore(copy, path) is not None and scopes(path) == ["copy"]


def test_a_damaged_database_is_replaced(path: Path) -> None:
    """The very case a backup is for."""
    copy = fill(path.with_name("copy.db"), "console")
    path.write_bytes(b"rubbish" * 1000)
    kept = restore(copy, path)
    assert kept is not None and kept.read_bytes().startswith(b"rubbish")
    assert scopes(path) == ["console"]


def test_a_plain_database_is_encrypted_in_place(path: Path) -> None:
    """All rows are there with the key, nothing is readable without it, the schema is the same."""
    with Database(path) as db:
        db.scopes.ensure("console")
        db.people.ensure("discord", "NEEDLE", display_name="NEEDLE")
        before = db.events.list()
    assert encrypt_database(path, KEY) == []
    with Database(path, key=KEY) as db:
        assert db.events.list() == before and db.migrated_from is None
        assert len(db.people.find("NEEDLE")) == 1
        db.events.add("cli", "test", "sequence")
        assert db.events.list()[0].id == before[0].id + 1
    assert b"NEEDLE" not in b"".join(
        file.read_bytes() for file in path.parent.iterdir() if file.is_file()
    )
    with pytest.raises(WrongKey, match="no key is set"):
        Database(path)


def test_plain_backups_that_are_left_are_named(path: Path) -> None:
    """Encryption says which plain backups the operator may want to delete."""
    fill(path)
    left = path.parent / "backups" / f"{path.name}.20260101T000000000000Z.schema1.db"
    left.parent.mkdir()
    left.write_bytes(path.read_bytes())
    assert encrypt_database(path, KEY) == [left]


def test_encrypting_twice_or_in_use_is_refused(path: Path) -> None:
    """Without a key, without a file, in use or encrypted already: refused and unchanged."""
    with pytest.raises(InvalidInput, match="there is no database yet"):
        encrypt_database(path, KEY)
    fill(path)
    with open_elsewhere(path), pytest.raises(StorageError, match="is open in another process"):
        encrypt_database(path, KEY)
    with pytest.raises(InvalidInput, match="no key"):
        encrypt_database(path, "")
    encrypt_database(path, KEY)
    with pytest.raises(WrongKey, match="encrypted already"):
        encrypt_database(path, KEY)
    assert scopes(path, KEY) == []
