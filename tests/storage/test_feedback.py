"""Votes: the last one wins, a withdrawn one goes, the history stays."""

from __future__ import annotations

import tracemalloc

import pytest

from core.errors import InvalidInput, NotFound
from core.records import utc_now
from storage.database import Database
from storage.signals import Wanted
from tests.storage.conftest import Chat


def actions(db: Database, subject: str) -> list[str]:
    return [event.action for event in reversed(db.events.list(subject=subject))]


def test_the_last_vote_wins_and_the_history_stays(db: Database, chat: Chat) -> None:
    """A changed mind updates the one row; each change is an event."""
    reply = chat.say("hi")
    first = db.feedback.vote(reply.id, chat.person.id, "up")
    second = db.feedback.vote(reply.id, chat.person.id, "down", reasons=("wrong",))
    assert (second.id, second.kind, second.reasons) == (first.id, "down", ("wrong",))
    assert db.feedback.of_reply(reply.id) == [second]
    assert actions(db, reply.id) == ["feedback.up", "feedback.down"]


def test_the_same_vote_again_changes_nothing(db: Database, chat: Chat) -> None:
    """A double click is one vote, one event, one time."""
    reply = chat.say("hi")
    votes = [db.feedback.vote(reply.id, chat.person.id, "up") for _ in range(3)]
    assert votes == [votes[0]] * 3 and actions(db, reply.id) == ["feedback.up"]


def test_a_withdrawn_vote_goes(db: Database, chat: Chat) -> None:
    """The row goes, the event stays, and there is nothing to withdraw twice."""
    reply = chat.say("hi")
    db.feedback.vote(reply.id, chat.person.id, "up")
    assert db.feedback.withdraw(reply.id, chat.person.id) is True
    assert db.feedback.withdraw(reply.id, chat.person.id) is False
    assert db.feedback.of_reply(reply.id) == []
    assert actions(db, reply.id) == ["feedback.up", "feedback.withdrawn"]


def test_a_correction_stands_beside_a_vote(db: Database, chat: Chat) -> None:
    """A person may vote, correct and ask again for one reply; each is a row of its own."""
    reply = chat.say("hi")
    db.feedback.vote(reply.id, chat.person.id, "down")
    db.feedback.correct(reply.id, chat.person.id, "hello!")
    db.feedback.correct(reply.id, chat.person.id, "hello there!")
    db.feedback.regenerate(reply.id, chat.person.id)
    kinds = {row.kind: row.text for row in db.feedback.of_reply(reply.id)}
    assert kinds == {"down": None, "correction": "hello there!", "regenerate": None}


def test_no_event_holds_words(db: Database, chat: Chat) -> None:
    """The audit trail never holds what a person wrote, a correction and a reason included."""
    reply = chat.say("SECRET question")
    db.feedback.vote(reply.id, chat.person.id, "down", reasons=("SECRET reason",))
    db.feedback.correct(reply.id, chat.person.id, "SECRET correction")
    db.scopes.set_persona("console", "SECRET persona", actor="cli")
    assert "SECRET" not in repr(db.events.list(limit=1000))


def test_the_opposite_preference_replaces_the_first(db: Database, chat: Chat) -> None:
    """Who finds A better than B, then B better than A, has said the latter only."""
    one, two = chat.say("hi", "one"), chat.say("hi", "two")
    db.feedback.prefer(one.id, chat.person.id, two.id)
    db.feedback.prefer(two.id, chat.person.id, one.id)
    (row,) = db.feedback.rows("console")
    assert (row.reply_text, row.other_text, row.other_finish_reason) == ("two", "one", "stop")


def test_refusals_are_plain(db: Database, chat: Chat) -> None:
    """An unknown reply or person, a strange vote, a reply against itself are refused."""
    reply = chat.say("hi")
    with pytest.raises(NotFound, match="'r_0': there is no such reply"):
        db.feedback.vote("r_0", chat.person.id, "up")
    with pytest.raises(NotFound, match="something that does not exist"):
        db.feedback.vote(reply.id, "p_0", "up")
    with pytest.raises(InvalidInput, match="expected up or down"):
        db.feedback.vote(reply.id, chat.person.id, "sideways")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="cannot be preferred over itself"):
        db.feedback.prefer(reply.id, chat.person.id, reply.id)
    assert db.feedback.of_reply(reply.id) == []


def test_everybodys_consent_is_needed(db: Database, chat: Chat) -> None:
    """A row trains only if the voter and every author of the prompt consented."""
    bob = chat.someone("bob")
    reply = chat.say("hi", by=bob)
    db.feedback.vote(reply.id, chat.person.id, "up")
    assert [row.all_consented for row in db.feedback.rows("console")] == [False]
    assert db.feedback.rows("console", consented_only=True) == []
    db.people.set_consent(bob.id, "given", actor=bob.id)
    (row,) = db.feedback.rows("console", consented_only=True)
    assert row.authors == (bob.id,) and row.person_name == "Ada" and row.platform == "console"
    db.people.set_consent(chat.person.id, "refused", actor=chat.person.id)
    assert db.feedback.rows("console", consented_only=True) == []


def test_a_dropped_row_stays_but_does_not_train(db: Database, chat: Chat) -> None:
    """A reviewed-out row is marked, and a new vote of the same person does not clear the mark."""
    reply = chat.say("hi")
    row = db.feedback.vote(reply.id, chat.person.id, "up")
    assert db.feedback.drop(row.id, "admin").dropped
    assert db.feedback.vote(reply.id, chat.person.id, "down").dropped
    assert db.feedback.rows("console", consented_only=True) == []
    assert db.feedback.waiting("console") == (0, 0)


def test_rows_come_oldest_first_and_since(db: Database, chat: Chat) -> None:
    """Order and bound follow the time of the signal, not of its storing."""
    late, early = chat.say("a"), chat.say("b")
    db.feedback.vote(late.id, chat.person.id, "up", at="2026-02-01T00:00:00.000000Z")
    db.feedback.vote(early.id, chat.person.id, "up", at="2026-01-01T00:00:00.000000Z")
    assert [row.feedback.reply_id for row in db.feedback.rows("console")] == [early.id, late.id]
    newer = db.feedback.rows("console", since="2026-01-15T00:00:00.000000Z")
    assert [row.feedback.reply_id for row in newer] == [late.id]
    assert db.feedback.rows("other") == []


def test_rows_are_read_without_a_second_copy(db: Database, chat: Chat) -> None:
    """Reading a training set needs little more memory than the rows it returns."""
    reply = chat.say("hi", "a long answer " * 200)
    for index in range(300):
        db.feedback.vote(reply.id, chat.someone(str(index)).id, "up")
    db.feedback.rows("console", since="9999")
    tracemalloc.start()
    rows = db.feedback.rows("console")
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(rows) == 300 and peak < 1.2 * held


def test_waiting_counts_what_came_after_the_last_run(db: Database, chat: Chat) -> None:
    """A run that started takes the counter back to nought, whatever time an import claims."""
    bob = chat.someone("bob")
    db.feedback.vote(chat.say("a").id, chat.person.id, "up")
    db.feedback.vote(chat.say("b").id, bob.id, "up")
    assert db.feedback.waiting("console") == (2, 2)
    db.runs.create("console", recipe="kto", owner_pid=1)
    assert db.feedback.waiting("console") == (0, 0)
    db.feedback.vote(chat.say("c").id, bob.id, "up", at="2020-01-01T00:00:00.000000Z")
    assert db.feedback.waiting("console") == (1, 1)


def test_stats_count_kinds_and_like_rates(db: Database, chat: Chat) -> None:
    """Figures by kind and by adapter; an empty database has noughts."""
    assert db.feedback.stats()["signals"] == 0
    for kind in ("up", "up", "down"):
        db.feedback.vote(chat.say("a").id, chat.person.id, kind)  # type: ignore[arg-type]
    stats = db.feedback.stats("console")
    assert (stats["up"], stats["down"], stats["people"], stats["waiting"]) == (2, 1, 1, 3)
    assert db.feedback.like_rates("console") == {"base": (2, 1)}
    assert stats["like_rates"]["base"]["rate"] == pytest.approx(2 / 3)


def test_500_votes_of_one_person(db: Database, chat: Chat) -> None:
    """Many votes of one person stay one row each, and come back in one query."""
    reply = chat.say("hi")
    with db.transaction():
        replies = [chat.finish(chat.start(authors=[chat.person.id]), f"{n}") for n in range(500)]
        for each in replies:
            db.feedback.vote(each.id, chat.person.id, "up")
    for turn in range(500):
        db.feedback.vote(reply.id, chat.person.id, "up" if turn % 2 else "down", at=utc_now())
    assert len(db.feedback.rows("console")) == 501
    assert db.feedback.waiting("console") == (501, 1)


def test_feedback_is_searched_by_words_kind_and_adapter(db: Database, chat: Chat) -> None:
    """In the question, the reply, the correction, the reasons; signs of patterns are plain."""
    one, other = chat.say("Is it 100%?", "a yes"), chat.say("Why_so?", "b no")
    liked = db.feedback.vote(one.id, chat.person.id, "up")
    fixed = db.feedback.correct(other.id, chat.person.id, "because of tea")
    down = db.feedback.vote(other.id, chat.person.id, "down", reasons=("rude",))

    def found(**about: object) -> list[str]:
        wanted = Wanted(**about)  # type: ignore[arg-type]
        return [row.feedback.id for row in db.feedback.search("console", wanted)]

    assert found(text="100%") == [liked.id]
    assert found(text="%") == [liked.id]
    assert set(found(text="y_s")) == {fixed.id, down.id}
    assert (found(text="tea"), found(text="rude")) == ([fixed.id], [down.id])
    assert (found(kind="up"), found(adapter="console@v1")) == ([liked.id], [])
    db.feedback.drop(liked.id, "admin")
    assert (found(text="100%", dropped=False), len(found(limit=1, offset=1))) == ([], 1)


def test_thumbs_are_counted_by_day(db: Database, chat: Chat) -> None:
    """Days without a thumb are left out, and so is what is too old."""
    for day in ("2026-01-01", "2026-01-03", "2026-01-03"):
        reply = chat.say(f"hi {utc_now()}")
        db.feedback.vote(reply.id, chat.person.id, "up", at=f"{day}T10:00:00.000000Z")
    assert db.feedback.by_day("console", since="2026-01-02") == [("2026-01-03", 2, 0)]
