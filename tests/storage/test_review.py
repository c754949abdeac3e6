"""Review: what should be looked at, and what a decision does."""

from __future__ import annotations

import pytest

from core.errors import Conflict, InvalidInput
from storage.database import Database
from tests.storage.conftest import Chat


def queue(db: Database) -> list[str]:
    return [row.feedback.id for row in db.feedback.review_queue("console")]


def test_what_should_be_looked_at(db: Database, chat: Chat) -> None:
    """Corrections, reasons and thumbs that disagree; a plain thumb and a reply not kept are not."""
    ada, bob = chat.person.id, chat.someone("bob").id
    db.feedback.vote(chat.say("plain").id, ada, "up")
    corrected = db.feedback.correct(chat.say("a").id, ada, "better")
    tagged = db.feedback.vote(chat.say("b").id, ada, "down", reasons=("wrong",))
    disputed = chat.say("c").id
    thumbs = [db.feedback.vote(disputed, ada, "up"), db.feedback.vote(disputed, bob, "down")]
    unkept = chat.finish(chat.start(authors=[ada], kept=False), "x")
    db.feedback.vote(unkept.id, ada, "down", reasons=("wrong",))
    assert queue(db) == [row.id for row in (corrected, tagged, *thumbs)]
    assert len(db.feedback.review_queue("console")) == 4
    assert len(db.feedback.review_queue("console", limit=1)) == 1


@pytest.mark.parametrize(("minutes", "pending"), [(2, 21), (4, 0)])
def test_a_burst_of_one_person_is_looked_at(
    db: Database, chat: Chat, minutes: int, pending: int
) -> None:
    """More than 20 rows within any hour: 21 in 40 minutes are, 21 in 80 minutes are not."""
    for number in range(21):
        hour, minute = divmod(number * minutes, 60)
        reply = chat.finish(chat.start(authors=[chat.person.id]), f"{number}")
        at = f"2026-01-01T{hour:02}:{minute:02}:00.000000Z"
        db.feedback.vote(reply.id, chat.person.id, "up", at=at)
    assert len(db.feedback.review_queue("console", limit=100)) == pending


def test_a_decision_holds_until_the_person_changes_the_row(db: Database, chat: Chat) -> None:
    """Accepted is out of the queue; other words of the person are to be looked at anew."""
    reply = chat.say("hi")
    row = db.feedback.correct(reply.id, chat.person.id, "one")
    assert db.feedback.accept(row.id, "admin").reviewed_at is not None
    db.feedback.correct(reply.id, chat.person.id, "one")
    assert queue(db) == []
    db.feedback.correct(reply.id, chat.person.id, "two")
    assert queue(db) == [row.id]
    assert db.feedback.drop(row.id, "admin").reviewed_at is not None and queue(db) == []


def test_an_edited_correction_trains_with_its_new_words(db: Database, chat: Chat) -> None:
    """The row has the new text and is reviewed; the event holds no words."""
    row = db.feedback.correct(chat.say("hi").id, chat.person.id, "teh")
    edited = db.feedback.edit(row.id, "SECRET", "admin")
    assert edited.text == "SECRET" and edited.reviewed_at and queue(db) == []
    assert "SECRET" not in repr(db.events.list()) and "feedback.edited" in repr(db.events.list())


def test_refused_decisions(db: Database, chat: Chat) -> None:
    """A thumb has no words to edit, words are never emptied, a dropped row stays dropped."""
    reply = chat.say("hi")
    thumb = db.feedback.vote(reply.id, chat.person.id, "up")
    with pytest.raises(Conflict, match="only a correction has words"):
        db.feedback.edit(thumb.id, "words", "admin")
    with pytest.raises(InvalidInput, match="the new text is empty"):
        db.feedback.edit(thumb.id, " ", "admin")
    db.feedback.drop(thumb.id, "admin")
    with pytest.raises(Conflict, match="was dropped"):
        db.feedback.accept(thumb.id, "admin")
