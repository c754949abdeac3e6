"""Adapters: a version is immutable, and the pointer moves whole."""

from __future__ import annotations

import pytest

from core.errors import Conflict, NotFound
from storage.adapters import AdapterStore
from storage.database import Database
from tests.storage.conftest import adapter


def states(db: Database) -> dict[str, str]:
    return {record.name: record.state for record in db.adapters.list("console")}


@pytest.fixture
def two(db: Database) -> Database:
    """A database with console@v1 live and console@v2 a candidate."""
    db.adapters.add(adapter(1))
    db.adapters.add(adapter(2))
    db.adapters.promote("console@v1", actor="cli")
    return db


def test_promotion_moves_pointer_and_states_together(two: Database) -> None:
    """The new one is live, the old one retired and kept as the previous."""
    scope = two.adapters.promote("console@v2", actor="cli", detail="better")
    assert (scope.live, scope.previous) == ("console@v2", "console@v1")
    assert states(two) == {"console@v1": "retired", "console@v2": "live"}
    newest = two.events.list(limit=1, subject="console@v2")[0]
    assert (newest.action, newest.actor) == ("adapter.promoted", "cli")
    assert newest.detail["before"] == "console@v1"


def test_promoting_the_live_one_changes_nothing(two: Database) -> None:
    """Promotion can be repeated: the previous stays the previous."""
    before = two.scopes.get("console")
    assert two.adapters.promote("console@v1", actor="cli") == before


def test_two_rollbacks_flip_back_and_forth(two: Database) -> None:
    """Rollback goes to what spoke before, and again forth."""
    two.adapters.promote("console@v2", actor="cli")
    assert two.adapters.rollback("console", actor="cli").live == "console@v1"
    assert states(two) == {"console@v1": "live", "console@v2": "retired"}
    assert two.adapters.rollback("console", actor="cli").live == "console@v2"


def test_rollback_reaches_the_base(two: Database) -> None:
    """Before the first adapter the base spoke, so the first rollback leads there and back."""
    scope = two.adapters.rollback("console", actor="cli")
    assert (scope.live, scope.previous) == (None, "console@v1")
    assert two.adapters.rollback("console", actor="cli").live == "console@v1"
    assert two.adapters.promote_base("console", actor="cli").live is None


def test_nothing_to_roll_back_to_is_a_conflict(db: Database) -> None:
    """Where nothing was ever promoted, rollback says so."""
    db.scopes.ensure("console")
    with pytest.raises(Conflict, match="nothing to roll back"):
        db.adapters.rollback("console", actor="cli")


def test_a_refused_adapter_needs_force(two: Database) -> None:
    """The gate's refusal is kept unless somebody forces it, and the event says that they did."""
    two.adapters.set_state("console@v2", "refused", actor="gate", detail="too long")
    with pytest.raises(Conflict, match=r"was refused \(too long\)"):
        two.adapters.promote("console@v2", actor="cli")
    assert two.adapters.promote("console@v2", actor="cli", force=True).live == "console@v2"
    assert two.events.list(limit=1, subject="console@v2")[0].detail["forced"] is True


def test_a_rollback_to_a_refused_adapter_is_a_conflict(two: Database) -> None:
    """What was refused meanwhile does not come back by a rollback."""
    two.adapters.promote("console@v2", actor="cli")
    two.adapters.set_state("console@v1", "refused", actor="cli")
    with pytest.raises(Conflict, match="console@v1, which spoke before, was refused meanwhile"):
        two.adapters.rollback("console", actor="cli")


def test_live_is_no_state_to_set(two: Database) -> None:
    """Only the pointer makes an adapter live, or ends that."""
    for name, state in (("console@v2", "live"), ("console@v1", "retired")):
        with pytest.raises(Conflict, match="cannot be set to"):
            two.adapters.set_state(name, state, actor="cli")  # type: ignore[arg-type]


def test_an_adapter_that_cannot_be_loaded_is_withdrawn(two: Database) -> None:
    """It is refused, what spoke before speaks, and no pointer names it any more."""
    two.adapters.promote("console@v2", actor="cli")
    scope = two.adapters.withdraw("console@v2", fallback="console@v1", reason="NaN weights")
    assert (scope.live, scope.previous) == ("console@v1", None)
    assert two.adapters.get("console@v2").detail == "NaN weights"
    assert states(two) == {"console@v1": "live", "console@v2": "refused"}


def test_withdrawing_what_is_not_live_moves_nothing(two: Database) -> None:
    """If somebody promoted another meanwhile, the pointer stays theirs."""
    scope = two.adapters.withdraw("console@v2", fallback=None, reason="corrupt")
    assert scope.live == "console@v1" and states(two)["console@v2"] == "refused"


def test_a_promotion_that_fails_half_way_leaves_all_as_it_was(
    two: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """States, pointer and event are one transaction."""
    before, told = states(two), len(two.events.list())
    mark = AdapterStore._mark

    def fail_at_the_second(store: AdapterStore, name: str, state: str, detail: str = "") -> None:
        if name == "console@v2":
            raise OSError("power cut")
        mark(store, name, state, detail)  # type: ignore[arg-type]

    monkeypatch.setattr(AdapterStore, "_mark", fail_at_the_second)
    with pytest.raises(OSError, match="power cut"):
        two.adapters.promote("console@v2", actor="cli")
    assert states(two) == before and len(two.events.list()) == told
    assert two.scopes.get("console").live == "console@v1"


def test_a_version_is_never_given_out_twice(db: Database) -> None:
    """Numbers go on after those reserved and those added from elsewhere."""
    assert [db.adapters.next_version("console") for _ in range(2)] == [1, 2]
    db.adapters.add(adapter(7))
    assert db.adapters.next_version("console") == 8


def test_a_name_stands_for_one_content(db: Database) -> None:
    """Adding the same again changes nothing; other content under the name is a conflict."""
    assert db.adapters.add(adapter(1)) == db.adapters.add(adapter(1)) == adapter(1)
    with pytest.raises(Conflict, match="a version is immutable"):
        db.adapters.add(adapter(1, sha256="f" * 64))
    with pytest.raises(NotFound, match="'console@v9': there is no such version"):
        db.adapters.get("console@v9")
