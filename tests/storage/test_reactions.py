"""Reactions: a mirror of what is known, and the votes that follow its changes."""

from __future__ import annotations

import pytest

from core.errors import InvalidInput
from core.records import Reply
from storage.database import Database
from tests.storage.conftest import Chat


@pytest.fixture
def reply(chat: Chat) -> Reply:
    """A reply that message 1 shows."""
    reply = chat.say("hi")
    chat.db.replies.show(reply.id, "c", ["1"])
    return reply


def kind(db: Database, reply: Reply, person: str) -> str | None:
    vote = db.feedback.vote_of(reply.id, person)
    return vote.kind if vote else None


def test_a_reaction_is_a_vote_once(db: Database, chat: Chat, reply: Reply) -> None:
    """The same again, or one on a message that shows no reply, changes nothing."""
    vote = db.feedback.react("1", chat.person.id, "up")
    assert vote is not None and vote == db.feedback.vote_of(reply.id, chat.person.id)
    assert db.feedback.react("1", chat.person.id, "up") is None
    assert db.feedback.react("2", chat.person.id, "up") is None
    assert db.feedback.reactions("1") == {("ada", "up")}
    with pytest.raises(InvalidInput, match="expected up or down"):
        db.feedback.react("1", chat.person.id, "heart")  # type: ignore[arg-type]


def test_taking_one_of_two_reactions_back(db: Database, chat: Chat, reply: Reply) -> None:
    """The later one counts; when it goes the other counts, then none."""
    person = chat.person.id
    db.feedback.react("1", person, "up")
    db.feedback.react("1", person, "down")
    assert kind(db, reply, person) == "down"
    assert db.feedback.unreact("1", person, "down") is True
    assert kind(db, reply, person) == "up"
    assert db.feedback.unreact("1", person, "up") is True
    assert kind(db, reply, person) is None
    assert db.feedback.unreact("1", person, "up") is False


def test_a_vote_changed_by_button_outlives_the_reaction(
    db: Database, chat: Chat, reply: Reply
) -> None:
    """A reaction that goes takes only a vote of its own kind along."""
    db.feedback.react("1", chat.person.id, "up")
    db.feedback.vote(reply.id, chat.person.id, "down")
    assert db.feedback.unreact("1", chat.person.id, "up") is True
    assert kind(db, reply, chat.person.id) == "down"


def test_a_time_away_is_made_up_for(db: Database, chat: Chat, reply: Reply) -> None:
    """Only differences are applied: came, went and changed; a second look finds none."""
    ada, bob, eve = chat.person.id, chat.someone("bob").id, chat.someone("eve").id
    db.feedback.react("1", ada, "up")
    db.feedback.react("1", bob, "up")
    db.feedback.withdraw(reply.id, bob)
    seen = {"up": [bob, eve], "down": [ada]}
    assert db.feedback.sync_reactions("1", seen) == 3
    assert [kind(db, reply, one) for one in (ada, bob, eve)] == ["down", None, "up"]
    assert db.feedback.sync_reactions("1", seen) == 0
    assert db.feedback.sync_reactions("unknown", seen) == 0
    assert db.feedback.sync_reactions("1", {}) == 3 and db.feedback.of_reply(reply.id) == []
