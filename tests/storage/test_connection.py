"""Opening: the right key, a whole file, and a plain sentence for everything else."""

from __future__ import annotations

import builtins
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from core.errors import InvalidInput, StorageError, WrongKey
from storage.connection import connect
from storage.database import Database
from tests.storage.conftest import chat_in

KEY = "it's a key"


def make(path: Path, key: str | None = None, votes: int = 60) -> Path:
    """Write a database of some pages."""
    with Database(path, key=key) as db:
        chat = chat_in(db)
        for number in range(votes):
            db.feedback.vote(chat.say(f"message {number} " + "x" * 300).id, chat.person.id, "up")
    return path


def test_a_connection_is_durable_and_checks_references(path: Path) -> None:
    """A commit waits for the disk, references are enforced, deleted bytes are zeroed."""
    make(path, votes=1)
    connection = connect(path)
    pragmas = {
        name: connection.value(f"PRAGMA {name}")
        for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
    }
    connection.close()
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "secure_delete": 1,
    }


def test_a_wrong_key_is_refused(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A wrong key is told in a sentence, and nothing is written on stderr."""
    make(path, KEY, votes=1)
    with pytest.raises(WrongKey, match="the key does not open this database"):
        Database(path, key="another")
    assert capfd.readouterr().err == ""


def test_a_missing_key_is_refused(path: Path) -> None:
    """An encrypted file without a key names the variable to set."""
    make(path, KEY, votes=1)
    with pytest.raises(WrongKey, match="no key is set; set THUMBTUNE_DB_KEY"):
        Database(path)


def test_a_key_for_a_plain_file_is_refused(path: Path) -> None:
    """A key set for a plain database gives the command that encrypts it."""
    make(path, votes=1)
    with pytest.raises(WrongKey, match="thumbtune data encrypt"):
        Database(path, key=KEY)


def test_an_encrypted_file_shows_nothing(path: Path) -> None:
    """Neither the standard sqlite3 nor a search of the bytes finds anything in it."""
    make(path, KEY, votes=1)
    assert b"message 0" not in path.read_bytes()
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        sqlite3.connect(path).execute("SELECT * FROM replies")


def test_a_missing_extra_names_the_command(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without sqlcipher3 a key is refused with the command that installs it."""
    real = builtins.__import__

    def without(name: str, *rest: Any, **kw: Any) -> Any:
        if name == "sqlcipher3":
            raise ImportError(name)
        return real(name, *rest, **kw)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(StorageError, match=r"pip install 'thumbtune\[encrypted\]'"):
        Database(path, key=KEY)


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.9])
def test_a_truncated_file_is_refused(path: Path, key: str | None, share: float) -> None:
    """Wherever the file was cut, opening says so and what to do."""
    make(path, key)
    with path.open("r+b") as file:
        file.truncate(int(path.stat().st_size * share))
    with pytest.raises(StorageError, match=r"truncated, damaged or no database.*thumbtune restore"):
        Database(path, key=key)


def test_a_damaged_page_is_found(path: Path) -> None:
    """A page overwritten in the middle is found at opening, not at the first use."""
    make(path)
    with path.open("r+b") as file:
        file.seek(4096 * 12)
        file.write(os.urandom(4096 * 4))
    with pytest.raises(StorageError, match="damaged"):
        Database(path)


def test_the_newest_backup_is_named(path: Path) -> None:
    """Where there are automatic backups, the advice names the newest."""
    (path.parent / "backups").mkdir()
    backup = path.parent / "backups" / f"{path.name}.20260101T000000000000Z.schema1.db"
    backup.touch()
    path.write_text("no database at all")
    with pytest.raises(StorageError, match=f"thumbtune restore {backup}"):
        Database(path)


def test_another_programs_database_is_left_alone(path: Path) -> None:
    """A SQLite file with foreign tables is refused and not touched."""
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE recipes(id)")
    other.close()
    with pytest.raises(StorageError, match=r"another program's database.*recipes"):
        Database(path)


def test_a_directory_that_cannot_be_is_a_plain_refusal(tmp_path: Path) -> None:
    """A path that names a directory is refused in our words."""
    with pytest.raises(StorageError, match="cannot be read"):
        Database(tmp_path)


def test_a_busy_database_says_who_to_wait_for(path: Path) -> None:
    """When another holds the write lock for longer than the timeout, the error says so."""
    with Database(path) as first, Database(path, busy_timeout_s=0.05) as second:
        with first.transaction(), pytest.raises(StorageError, match="another process is writing"):
            second.scopes.ensure("console")
        assert second.scopes.ensure("console").name == "console"


def test_a_failed_block_leaves_nothing(path: Path) -> None:
    """A transaction is whole or nothing, also across stores."""
    with Database(path) as db:
        with pytest.raises(InvalidInput), db.transaction():
            db.scopes.ensure("console")
            db.scopes.ensure("Not A Name")
        assert db.scopes.list() == [] and db.events.list() == []


def test_a_snapshot_sees_one_state_and_keeps_nobody_waiting(path: Path) -> None:
    """What another process writes meanwhile is seen after the block, not in it."""
    reader, writer = connect(make(path, votes=1)), connect(path)
    count = "SELECT count(*) FROM people"
    with reader.snapshot():
        before = reader.value(count)
        writer.run(
            "INSERT INTO people(id, platform, platform_id, display_name, created_at) "
            "VALUES ('p_new', 'cli', 'new', 'New', '2026-01-01T00:00:00.000000Z')"
        )
        assert reader.value(count) == before
    assert reader.value(count) == before + 1
    with reader.transaction():
        reader.run("DELETE FROM people WHERE id = 'p_new'")
    assert writer.value(count) == before
    reader.close()
    writer.close()
