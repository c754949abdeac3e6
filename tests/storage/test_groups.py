"""Whose servers a database holds: one answer, kept over restarts, with its trace."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from core.shares import Group, ShardShare
from storage.database import Database


def test_a_new_database_is_nobodys(db: Database) -> None:
    """Whoever serves Discord from it first claims it."""
    assert db.groups.claimed() is None


def test_a_claim_is_kept_and_written_down_once(path: Path) -> None:
    """It is there after a restart; saying the same again adds no audit line."""
    share = ShardShare(Group(1, 2), 4)
    with Database(path) as db:
        db.groups.claim(share, actor="discord")
        db.groups.claim(share, actor="discord")
    with Database(path) as db:
        assert db.groups.claimed() == share
        actions = [event.action for event in db.events.list(subject="group 1 of 2")]
    assert actions == ["group.claimed"]


def test_there_is_one_row_at_most(db: Database) -> None:
    """A later claim takes the place of the one before; the table holds no other."""
    db.groups.claim(ShardShare(Group(0, 1), 1), actor="discord")
    db.groups.claim(ShardShare(Group(0, 2), 2), actor="cli")
    assert db.groups.claimed() == ShardShare(Group(0, 2), 2)
    with pytest.raises(sqlite3.IntegrityError):
        db._connection.raw.execute("INSERT INTO discord_group VALUES (2, 0, 1, 1, 't')")
