"""Trials: choices between two replies, tallied from what people said last."""

from __future__ import annotations

import pytest

from core.errors import Conflict, InvalidInput, NotFound
from core.records import Match, Reply, Tally
from storage.database import Database
from tests.storage.conftest import Chat


@pytest.fixture
def pair(chat: Chat) -> tuple[Reply, Reply]:
    """Two replies, the first kept, the second not."""
    other = chat.start(authors=[chat.person.id], kept=False)
    return chat.say("hi", "candidate"), chat.finish(other, "reference")


@pytest.fixture
def match(db: Database, pair: tuple[Reply, Reply]) -> Match:
    """The two side by side, the reference first."""
    trial = db.trials.ensure("console", "arena", candidate="console@v1", reference="base")
    return db.trials.add_match(
        trial.id, candidate_reply=pair[0].id, reference_reply=pair[1].id, candidate_first=False
    )


def preferences(db: Database) -> list[tuple[str, str | None]]:
    rows = [row.feedback for row in db.feedback.rows("console")]
    return [(row.reply_id, row.other_reply_id) for row in rows if row.kind == "preference"]


def test_one_trial_is_open_for_a_pair(db: Database, chat: Chat) -> None:
    """The same pair has the same trial until it ends; then a new one begins."""
    first = db.trials.ensure("console", "arena", candidate="a", reference="base")
    assert db.trials.ensure("console", "arena", candidate="a", reference="base") == first
    canary = db.trials.ensure("console", "canary", candidate="a", reference="base")
    assert db.trials.close(first.id, "better", actor="cli").state == "better"
    assert db.trials.close(first.id, "better", actor="cli").state == "better"
    with pytest.raises(Conflict, match="has ended"):
        db.trials.close(first.id, "worse", actor="cli")
    again = db.trials.ensure("console", "arena", candidate="a", reference="base")
    assert [one.id for one in db.trials.list("console")] == [again.id, canary.id, first.id]


def test_the_last_choice_counts(
    db: Database, chat: Chat, match: Match, pair: tuple[Reply, Reply]
) -> None:
    """Order on the screen is undone, the preference follows, and a tie takes it back."""
    candidate, reference = (reply.id for reply in pair)
    for choice, tally, stored in (
        ("first", Tally(0, 1, 0, 1), [(reference, candidate)]),
        ("second", Tally(1, 0, 0, 1), [(candidate, reference)]),
        ("second", Tally(1, 0, 0, 1), [(candidate, reference)]),
        ("tie", Tally(0, 0, 1, 1), []),
    ):
        db.trials.choose(match.id, chat.person.id, choice)  # type: ignore[arg-type]
        assert db.trials.tally(match.trial_id) == tally
        assert preferences(db) == stored
    events = db.events.list(subject=match.id)
    assert [event.detail["choice"] for event in events] == ["tie", "candidate", "reference"]


def test_people_are_counted_once(db: Database, chat: Chat, match: Match) -> None:
    """Two people's choices are two; an empty trial has noughts."""
    assert db.trials.tally(match.trial_id) == Tally(0, 0, 0, 0)
    db.trials.choose(match.id, chat.person.id, "second")
    db.trials.choose(match.id, chat.someone("bob").id, "tie")
    assert db.trials.tally(match.trial_id) == Tally(1, 0, 1, 2)


def test_refusals_are_plain(db: Database, chat: Chat, match: Match) -> None:
    """An unknown match or trial, and a strange choice, are refused."""
    with pytest.raises(NotFound, match="'m_0': there is no such match"):
        db.trials.choose("m_0", chat.person.id, "first")
    with pytest.raises(NotFound, match="'t_0': there is no such trial"):
        db.trials.tally("t_0")
    with pytest.raises(InvalidInput, match="expected first, second or tie"):
        db.trials.choose(match.id, chat.person.id, "both")  # type: ignore[arg-type]
    assert db.trials.match(match.id) == match
