"""The database as a whole: several processes, kills, the change counter, the async face."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import StorageError
from storage.aio import AsyncDatabase
from storage.connection import connect
from storage.database import Database
from tests.storage.conftest import chat_in


def python(path: Path, body: str) -> subprocess.Popen[str]:
    """Start a process that has the database open as `db`."""
    head = "import os, signal\nfrom pathlib import Path\nfrom storage.database import Database\n"
    opened = f"db = Database(Path({str(path)!r}))\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + opened + textwrap.dedent(body)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_processes_write_at_once(path: Path) -> None:
    """Every write of both is there, with its event, and positions never clash."""
    with Database(path) as db:
        chat = chat_in(db)
    body = f"""
        for number in range(25):
            db.conversations.add_turn({chat.conversation!r}, role="user", text=str(number))
            db.adapters.next_version("console")
    """
    both = [python(path, body) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    with Database(path) as db:
        turns = db.conversations.history(chat.conversation, limit=999)
        assert [turn.position for turn in turns] == list(range(50))
        assert db.adapters.next_version("console") == 51


def test_a_vote_said_to_be_stored_survives_a_kill(path: Path) -> None:
    """After kill -9 right behind the return of `vote`, the vote and its event are there."""
    with Database(path) as db:
        chat = chat_in(db)
        reply = chat.say("hi")
    body = f"""
        db.feedback.vote({reply.id!r}, {chat.person.id!r}, "up")
        print("stored", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    process = python(path, body)
    assert process.communicate()[0] == "stored\n" and process.returncode == -signal.SIGKILL
    with Database(path) as db:
        assert [row.kind for row in db.feedback.of_reply(reply.id)] == ["up"]
        assert [event.action for event in db.events.list(subject=reply.id)] == ["feedback.up"]


def test_a_kill_in_the_middle_of_a_promotion_leaves_it_undone(path: Path) -> None:
    """Pointer, states and event are all as before."""
    with Database(path) as db:
        db.scopes.ensure("console")
    body = """
        from storage.adapters import AdapterStore
        from tests.storage.conftest import adapter
        db.adapters.add(adapter(1))
        mark = AdapterStore._mark
        def killed(*given):
            mark(*given)
            os.kill(os.getpid(), signal.SIGKILL)
        AdapterStore._mark = killed
        db.adapters.promote("console@v1", actor="cli")
    """
    assert python(path, body).wait() == -signal.SIGKILL
    with Database(path) as db:
        assert db.scopes.get("console").live is None
        assert db.adapters.get("console@v1").state == "candidate"
        assert db.adapters.promote("console@v1", actor="cli").live == "console@v1"


def test_the_change_counter_sees_every_commit(
    db: Database, reopen: Callable[..., Database]
) -> None:
    """It moves with another connection's commit and with one's own, and stands still between."""
    first = db.change_counter()
    assert db.change_counter() == first
    with reopen() as other:
        other.scopes.ensure("theirs")
    second = db.change_counter()
    db.scopes.ensure("ours")
    assert len({first, second, db.change_counter()}) == 3


def test_events_are_append_only(db: Database, path: Path) -> None:
    """Not even plain SQL changes or removes an audit line."""
    db.events.add("cli", "test", "subject", figure=1)
    raw = connect(path)
    for statement in ("DELETE FROM events", "UPDATE events SET actor = 'x'"):
        with pytest.raises(StorageError, match="append-only"):
            raw.run(statement)
    raw.close()
    assert db.events.list(1)[0].detail == {"figure": 1}


def test_a_new_database_appears_whole(path: Path) -> None:
    """Beside a new database lies nothing half made, and it opens as it is."""
    Database(path).close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    with sqlite3.connect(path) as raw:
        assert raw.execute("PRAGMA user_version").fetchone()[0] > 0
    raw.close()


async def test_one_thread_does_everything(path: Path) -> None:
    """The database is opened, used and closed in one thread, which is not the event loop's."""
    async with AsyncDatabase(path) as database:
        threads = await asyncio.gather(
            *(database.run(lambda _: threading.get_ident()) for _ in range(5))
        )
    assert len(set(threads)) == 1 and threads[0] != threading.get_ident()


async def test_closing_finishes_what_is_queued(path: Path) -> None:
    """Writes handed over before the close are stored; later ones are refused."""
    database = await AsyncDatabase(path).open()
    calls = [
        asyncio.create_task(database.run(lambda db, n=number: db.scopes.ensure(f"s{n}")))
        for number in range(20)
    ]
    await asyncio.sleep(0)
    await database.close()
    assert len(await asyncio.gather(*calls)) == 20
    await database.close()
    with pytest.raises(StorageError, match="the database is closed"):
        await database.run(lambda db: db.scopes.list())
    with Database(path) as db:
        assert len(db.scopes.list()) == 20


async def test_an_error_reaches_the_caller_and_the_thread_goes_on(path: Path) -> None:
    """A failed call is the caller's; the next one works. A failed opening leaves no thread."""
    async with AsyncDatabase(path) as database:
        with pytest.raises(LookupError, match="no such scope"):
            await database.run(lambda db: db.scopes.get("missing"))
        assert await database.run(lambda db: db.scopes.list()) == []
    with pytest.raises(StorageError, match="cannot be read"):
        await AsyncDatabase(path.parent).open()
    for thread in threading.enumerate():
        if thread.name.startswith("database"):
            thread.join(timeout=5)
            assert not thread.is_alive()
