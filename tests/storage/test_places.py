"""Places and where things are shown: settings by key, exact on a segment."""

from __future__ import annotations

import pytest

from core.errors import NotFound
from storage.database import Database


def test_settings_come_back_as_they_went_in(db: Database) -> None:
    """A place not known has none; what is put replaces all that was there."""
    assert db.places.get("discord/1") == {}
    db.places.put("discord/1", {"training": True, "roles": {"feedback": [7]}}, actor="p_1")
    db.places.put("discord/1", {"persona": "be kind"}, actor="p_1")
    assert db.places.get("discord/1") == {"persona": "be kind"}


def test_the_event_names_what_changed_and_no_value(db: Database) -> None:
    """Each change is told by its keys; putting the same again is no change."""
    for _ in range(2):
        db.places.put("discord/1", {"persona": "SECRET", "training": True}, actor="p_1")
    db.places.put("discord/1", {"persona": "SECRET"}, actor="p_1")
    events = db.events.list(subject="discord/1")
    assert [event.detail["settings"] for event in events] == [["training"], ["persona", "training"]]
    assert "SECRET" not in repr(events)


@pytest.mark.parametrize("odd", ["discord/12", "discord/1_", "discord/1%/2"])
def test_a_prefix_is_whole_segments(db: Database, odd: str) -> None:
    """A server holds its channels, not a server whose number begins alike."""
    for key in ("discord/1", "discord/1/5", odd):
        db.places.put(key, {"name": key}, actor="p_1")
    assert list(db.places.list("discord/1")) == ["discord/1", "discord/1/5"]
    assert db.places.remove("discord/1") == 2
    assert db.places.remove("discord/1") == 0
    assert list(db.places.list("discord")) == [odd]


def test_a_runs_message_is_found_again(db: Database) -> None:
    """The last message that shows a run's progress is the one; an unknown run is refused."""
    db.scopes.ensure("console")
    run = db.runs.create("console", recipe="kto", owner_pid=1)
    assert db.runs.shown(run.id) is None
    db.runs.show(run.id, "1", "2")
    db.runs.show(run.id, "1", "3")
    assert db.runs.shown(run.id) == ("1", "3")
    with pytest.raises(NotFound, match="'run_0'"):
        db.runs.show("run_0", "1", "2")


def test_a_new_scope_may_begin_without_training(db: Database) -> None:
    """The flag is for a new scope only; a decision made since is not overruled."""
    assert not db.scopes.ensure("guild", training_enabled=False).training_enabled
    assert not db.scopes.ensure("guild", training_enabled=True).training_enabled
