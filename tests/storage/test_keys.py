"""API keys: found by hash while valid, revoked for good, never stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import Conflict, NotFound
from core.records import ApiKey
from storage.database import Database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database lies."""
    return tmp_path / "keys.db"


def add(db: Database, name: str, sha256: str) -> ApiKey:
    """Store a user's key."""
    return db.keys.add(name, sha256, role="user", scope="api", consented=False, actor="cli")


def test_a_key_is_found_by_its_hash_until_it_is_revoked(path: Path) -> None:
    """Also by another connection; afterwards it is known and refused."""
    with Database(path) as db:
        assert not db.keys.any()
        made = add(db, "web", "a" * 64)
    with Database(path) as db:
        assert db.keys.find("a" * 64) == made and db.keys.find("b" * 64) is None
        assert db.keys.revoke("web", actor="cli") == db.keys.revoke("web", actor="cli")
        assert db.keys.find("a" * 64) is None and db.keys.any()
        assert [key.revoked_at is None for key in db.keys.list()] == [False]


def test_a_name_has_one_key_at_a_time(path: Path) -> None:
    """A second is a conflict until the first is revoked; then the old one stays refused."""
    with Database(path) as db:
        add(db, "web", "a" * 64)
        with pytest.raises(Conflict, match="'web': there is one already"):
            add(db, "web", "b" * 64)
        db.keys.revoke("web", actor="cli")
        add(db, "web", "b" * 64)
        assert db.keys.find("a" * 64) is None and db.keys.find("b" * 64) is not None


def test_an_unknown_name_is_told_with_the_known_ones(path: Path) -> None:
    """The sentence lists them."""
    with Database(path) as db:
        add(db, "web", "a" * 64)
        with pytest.raises(NotFound, match=r"'wep'.*known: web"):
            db.keys.revoke("wep", actor="cli")


def test_what_happened_to_a_key_is_in_the_audit_trail(path: Path) -> None:
    """Who made it, as what, and who revoked it; no hash."""
    with Database(path) as db:
        add(db, "web", "a" * 64)
        db.keys.revoke("web", actor="ada")
        lines = db.events.list(subject="web")
        assert [(line.actor, line.action) for line in lines] == [
            ("ada", "key.revoked"),
            ("cli", "key.added"),
        ]
        assert "a" * 64 not in str(lines)
