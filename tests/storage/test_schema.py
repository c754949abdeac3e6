"""Migrations: every earlier schema opens with its rows, after a backup; a later one is refused."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import sqlite_utils

from core.errors import SchemaTooNew
from storage.connection import open_unchecked
from storage.copies import backups_of
from storage.database import Database
from storage.migrations import migrations
from storage.schema import schema_version

OLD_ROWS = (
    "INSERT INTO scopes(name, created_at) VALUES ('console', 't')",
    "INSERT INTO people(id, platform, platform_id, consent, created_at)"
    " VALUES ('p_1', 'console', 'ada', 'given', 't'), ('p_2', 'console', 'bob', 'given', 't')",
    "INSERT INTO conversations(id, scope, person_id, created_at, updated_at)"
    " VALUES ('c_1', 'console', 'p_1', 't', 't')",
    "INSERT INTO replies(id, conversation_id, scope, prompt, text, adapter, sampling, state,"
    " origin, at) VALUES ('r_1', 'c_1', 'console', '[[\"user\",\"hi\"]]', 'hello', 'base',"
    " '{\"stop\":[]}', 'done', 'r_1', 't')",
    "INSERT INTO reply_authors VALUES ('r_1', 'p_2')",
    "INSERT INTO feedback(id, reply_id, person_id, kind, at, recorded_at)"
    " VALUES ('f_1', 'r_1', 'p_1', 'up', 't', 't')",
    "INSERT INTO runs(id, scope, state, recipe, directory, created_at, updated_at)"
    " VALUES ('run_1', 'console', 'promoted', 'kto', 'runs/run_1', 't', 't')",
    "INSERT INTO run_examples VALUES ('run_1', 'f_1')",
    "INSERT INTO adapters(name, scope, version, base_sha256, run_id, directory, sha256, state,"
    " created_at) VALUES ('console@v1', 'console', 1, 'b', 'run_1', 'd', 's', 'live', 't')",
)

_RUN_PEOPLE = 3
"""From this schema on a run's people are stored when it begins; before, a migration finds them."""


def make_old(path: Path, schema: int, key: str | None = None) -> Path:
    """Write a database as the version with this many migrations left it, with rows."""
    names = [migration.name for migration in migrations._migrations]
    connection = open_unchecked(path, key=key)
    connection.value("PRAGMA journal_mode = WAL")
    facade = sqlite_utils.Database(connection.raw, execute_plugins=False)
    migrations.apply(facade, stop_before=names[schema:] or None)
    connection.run(f"PRAGMA user_version = {schema}")
    for statement in OLD_ROWS:
        connection.run(statement)
    if schema >= _RUN_PEOPLE:
        connection.run("INSERT INTO run_people VALUES ('run_1', 'p_1'), ('run_1', 'p_2')")
    connection.close()
    return path


@pytest.mark.parametrize("key", [None, "secret"])
@pytest.mark.parametrize("schema", range(1, schema_version()))
def test_each_earlier_schema_is_migrated_after_a_backup(
    path: Path, schema: int, key: str | None
) -> None:
    """The rows are there with what they mean, and the backup is the database as it was."""
    make_old(path, schema, key)
    with Database(path, key=key) as db:
        assert [row.reply_text for row in db.feedback.rows("console")] == ["hello"]
        assert db.adapters.get("console@v1").state == "live"
        assert [run.id for run in db.runs.of_person("p_2")] == ["run_1"]
        assert db.people.forget("p_2", actor="cli")["adapters_affected"] == 1
        backup = db.migrated_from
    assert backup is not None and f"schema{schema}" in backup.name
    copy = open_unchecked(backup, key=key)
    assert copy.value("PRAGMA user_version") == schema
    assert copy.value("SELECT count(*) FROM feedback") == 1
    copy.close()


def test_message_ids_move_into_their_table(path: Path) -> None:
    """The newest reply has a message that two claimed; old replies are kept ones; trials go."""
    make_old(path, 3)
    with sqlite3.connect(path) as old:
        old.execute("UPDATE replies SET platform_message_ids = '[\"7\", 8]'")
        old.execute(
            """INSERT INTO replies(id, conversation_id, scope, prompt, adapter, sampling, origin,
            platform_message_ids, at) SELECT 'r_2', conversation_id, scope, prompt, adapter,
            sampling, 'r_2', '["8", "9"]', 'u' FROM replies"""
        )
        old.execute(
            """INSERT INTO trials(id, scope, kind, candidate, reference, created_at, updated_at)
            VALUES ('t_1', 'console', 'arena', 'a', 'b', 't', 't')"""
        )
    old.close()
    with Database(path) as db:
        first, second = (
            [(one.message_id, one.position) for one in db.replies.messages(reply)]
            for reply in ("r_1", "r_2")
        )
        assert (first, second) == ([("7", 0)], [("8", 0), ("9", 1)])
        assert db.replies.get("r_1").kept and db.trials.list("console") == []
        assert db.feedback.get("f_1").reviewed_at is None


def test_trials_from_before_canaries_have_no_share(path: Path) -> None:
    """They stay as they were, and no reply takes part in one."""
    make_old(path, 8)
    with sqlite3.connect(path) as old:
        old.execute(
            """INSERT INTO trials(id, scope, kind, candidate, reference, created_at, updated_at)
            VALUES ('t_1', 'console', 'arena', 'a', 'b', 't', 't')"""
        )
    old.close()
    with Database(path) as db:
        assert [(trial.id, trial.share) for trial in db.trials.list("console")] == [("t_1", None)]
        assert db.trials.canary("console") is None
        assert db.canary.thumbs("t_1") == []


def test_an_encrypted_databases_backup_is_encrypted(path: Path) -> None:
    """The backup before a migration is no way round the key."""
    make_old(path, 1, "secret")
    with Database(path, key="secret") as db:
        backup = db.migrated_from
    assert backup is not None
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        sqlite3.connect(backup).execute("SELECT * FROM people")


def test_a_database_at_this_schema_is_not_backed_up(path: Path) -> None:
    """Opening again changes nothing and makes no backup."""
    Database(path).close()
    with Database(path) as db:
        assert db.migrated_from is None
    assert backups_of(path) == []


def test_only_the_newest_backups_are_kept(path: Path) -> None:
    """Automatic backups do not fill the disk."""
    for _ in range(4):
        make_old(path, 1)
        Database(path, keep_backups=2).close()
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()
    assert len(backups_of(path)) == 2


def test_an_unknown_migration_is_refused_with_advice(path: Path) -> None:
    """A database of a newer Thumbtune says: upgrade, or restore the backup it names."""
    make_old(path, 1)
    with Database(path) as db:
        backup = db.migrated_from
    with sqlite3.connect(path) as newer:
        newer.execute(
            "INSERT INTO _sqlite_migrations(migration_set, name, applied_at)"
            " VALUES ('thumbtune', 'm999_later', 't')"
        )
    newer.close()
    with pytest.raises(SchemaTooNew, match=f"newer Thumbtune.*upgrade.*{backup}"):
        Database(path)


def test_a_higher_schema_number_is_refused(path: Path) -> None:
    """The number alone is enough to refuse."""
    Database(path).close()
    with sqlite3.connect(path) as newer:
        newer.execute(f"PRAGMA user_version = {schema_version() + 1}")
    newer.close()
    with pytest.raises(SchemaTooNew, match="upgrade Thumbtune, or restore a backup made before"):
        Database(path)


@pytest.mark.parametrize("schema", [0, 1])
def test_a_kill_in_the_middle_of_a_migration_loses_nothing(path: Path, schema: int) -> None:
    """After kill -9 inside a step the old schema is whole, and the next opening migrates it."""
    if schema:
        make_old(path, schema)
    script = f"""
        import os, signal
        from pathlib import Path
        from storage.migrations import migrations
        from storage.database import Database

        step = migrations._migrations[-1]
        whole = step.fn
        def killed(db):
            whole(db)
            os.kill(os.getpid(), signal.SIGKILL)
        step.fn = killed
        Database(Path({str(path)!r}))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == -signal.SIGKILL
    if schema:
        with sqlite3.connect(path) as old:
            assert old.execute("PRAGMA user_version").fetchone() == (schema,)
        old.close()
    with Database(path) as db:
        assert len(db.feedback.rows("console")) == schema


def test_two_processes_that_open_at_once_migrate_once(path: Path) -> None:
    """Several first starts at the same time all end with a working database."""
    make_old(path, 1)
    script = (
        "from pathlib import Path\nfrom storage.database import Database\n"
        f"Database(Path({str(path)!r}))"
    )
    started = [subprocess.Popen([sys.executable, "-c", script], env=os.environ) for _ in range(3)]
    assert [process.wait() for process in started] == [0, 0, 0]
    assert len(backups_of(path)) == 1
