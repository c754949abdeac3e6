"""Taking text back: of a person, of a place; and the adapters that learnt from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.records import Feedback, Reply
from storage.database import Database
from tests.storage.conftest import Chat, adapter, chat_in
from tests.storage.test_people import bytes_on_disk
from tests.storage.test_shown import PROMPT


def in_place(chat: Chat, key: str, text: str = "NEEDLE") -> Reply:
    """Store a finished reply in the conversation of a place."""
    conversation = chat.db.conversations.open("console", platform_key=key)
    there = Chat(chat.db, chat.person, conversation)
    return there.finish(there.start(PROMPT, authors=[chat.person.id], sources=["1"]), text)


def train_on(db: Database, row: Feedback, version: int) -> None:
    """Store a run that used this row, and its adapter."""
    run = db.runs.create("console", recipe="kto", owner_pid=1)
    db.runs.set_examples(run.id, [row.id])
    record = adapter(version, run_id=run.id)
    db.runs.publish(run.id, record, verdict_state="refused", promote=False, actor="cli")


def flagged(db: Database) -> list[str]:
    return [record.name for record in db.adapters.needing_retraining()]


def test_redacting_leaves_votes_and_no_word(path: Path) -> None:
    """Prompt, text, sources, turns and corrections go, from the file too; the thumb stays."""
    with Database(path) as db:
        chat = chat_in(db)
        reply = in_place(chat, "discord/1/2")
        bob = chat.someone("bob", consent="given")
        db.feedback.vote(reply.id, bob.id, "up")
        db.feedback.correct(reply.id, bob.id, "NEEDLE")
        others = chat.finish(chat.start(authors=[bob.id]), "hay")
        db.feedback.correct(others.id, chat.person.id, "NEEDLE")
        assert db.replies.redact(chat.person.id, actor="cli") == 1
        assert db.replies.redact(chat.person.id, actor="cli") == 0
        after = db.replies.get(reply.id)
        assert (after.kept, after.prompt, after.text) == (False, (), "")
        assert [row.kind for row in db.feedback.of_reply(reply.id)] == ["up"]
        assert db.feedback.of_reply(others.id) == []
        assert db.replies.get(others.id).text == "hay"
        assert db.replies.forget_message("1")["replies"] == 0
    assert b"NEEDLE" not in bytes_on_disk(path)


def test_redacting_a_place_leaves_the_others(db: Database, chat: Chat) -> None:
    """A prefix is whole segments: server 1 is not server 12, and only its adapter is flagged."""
    here, there = in_place(chat, "discord/1/5"), in_place(chat, "discord/12/5")
    for version, reply in enumerate((here, there), 1):
        train_on(db, db.feedback.vote(reply.id, chat.person.id, "up"), version)
    assert db.replies.redact(chat.person.id, key_prefix="discord/1", actor="cli") == 1
    assert not db.replies.get(here.id).kept and db.replies.get(there.id).kept
    assert flagged(db) == ["console@v1"]
    db.replies.redact(chat.person.id, actor="cli")
    assert flagged(db) == ["console@v1", "console@v2"]


def test_a_reply_redacted_while_it_is_written_stays_empty(db: Database, chat: Chat) -> None:
    """Who opts out in the middle of a reply finds no word of it stored."""
    pending = chat.start(PROMPT, authors=[chat.person.id])
    db.replies.redact(chat.person.id, actor="cli")
    assert chat.finish(pending, "late").text == ""


def test_opting_out_refuses_redacts_and_flags(path: Path) -> None:
    """Consent, text and turns go at once and leave no byte; twice changes nothing more."""
    with Database(path) as db:
        chat = chat_in(db)
        reply = chat.say("NEEDLE", "NEEDLE")
        train_on(db, db.feedback.vote(reply.id, chat.person.id, "up"), 1)
        counts = db.people.opt_out(chat.person.id, actor=chat.person.id)
        assert (counts["redacted"], counts["turns"], counts["adapters_affected"]) == (1, 2, 1)
        assert db.people.opt_out(chat.person.id, actor=chat.person.id)["redacted"] == 0
        assert db.people.get(chat.person.id).consent == "refused"
        assert flagged(db) == ["console@v1"]
        assert b"NEEDLE" not in bytes_on_disk(path)


@pytest.mark.parametrize("how", ["message", "place", "conversation"])
def test_a_run_that_is_going_on_is_flagged_too(db: Database, chat: Chat, how: str) -> None:
    """What is published later by a run whose text went meanwhile is to be retrained."""
    row = db.feedback.vote(in_place(chat, "discord/1/2").id, chat.person.id, "up")
    run = db.runs.create("console", recipe="kto", owner_pid=1)
    db.runs.set_examples(run.id, [row.id])
    if how == "message":
        db.replies.forget_message("1")
    elif how == "place":
        db.replies.redact(chat.person.id, key_prefix="discord/1", actor="cli")
    else:
        db.conversations.remove("console", "discord/1", actor="cli")
    db.adapters.add(adapter(1, run_id=run.id))
    db.adapters.add(adapter(2))
    assert flagged(db) == ["console@v1"]


def test_removing_a_place_leaves_the_others(db: Database, chat: Chat) -> None:
    """A server that removed the bot goes whole, one whose number begins alike stays."""
    gone, stays = in_place(chat, "discord/1/5"), in_place(chat, "discord/12/5")
    train_on(db, db.feedback.vote(gone.id, chat.person.id, "up"), 1)
    counts = db.conversations.remove("console", "discord/1", actor="cli")
    assert (counts["conversations"], counts["replies"], counts["feedback"]) == (1, 1, 1)
    assert flagged(db) == ["console@v1"] and db.replies.get(stays.id).kept
    assert db.conversations.remove("console", "discord/1", actor="cli")["conversations"] == 0


def test_reports_lose_their_samples(db: Database, chat: Chat) -> None:
    """Whose words a report's samples are is not kept, so they go with any text."""
    run = db.runs.create("console", recipe="kto", owner_pid=1)
    db.runs.advance(run.id, "training", report={"report": {"samples": ["NEEDLE"]}})
    in_place(chat, "discord/1/2")
    db.replies.forget_message("1")
    assert db.runs.get(run.id).report == {"report": {}}


def test_forgetting_takes_reactions_and_choices(db: Database, chat: Chat) -> None:
    """They are exported while they are there, and gone afterwards."""
    bob = chat.someone("bob")
    one, two = in_place(chat, "discord/1/2"), in_place(chat, "discord/1/2", "other")
    db.replies.show(one.id, "c", ["9"])
    db.feedback.react("9", bob.id, "up")
    trial = db.trials.ensure("console", "arena", candidate="a", reference="base")
    match = db.trials.add_match(
        trial.id, candidate_reply=one.id, reference_reply=two.id, candidate_first=True
    )
    db.trials.choose(match.id, bob.id, "first")
    held = db.people.export(bob.id)
    assert len(held["reactions"]) == len(held["match_votes"]) == 1
    db.people.forget(bob.id, actor="cli")
    assert db.feedback.reactions("9") == set() and db.trials.tally(trial.id).people == 0


def test_single_replies_expire_where_nobody_judged_them(db: Database, chat: Chat) -> None:
    """In a conversation that lives on, only what feedback rests on outlives its time."""
    idle, asked_again = chat.say("idle"), chat.say("again")
    better = chat.finish(chat.start(authors=[], replaces=asked_again.id), "better")
    db.feedback.vote(better.id, chat.person.id, "up")
    assert db.conversations.expire("2000") == 0
    assert db.conversations.expire("2999") == 0
    texts = [turn.text for turn in db.conversations.history(chat.conversation, limit=9)]
    assert texts == ["again", "better"]
    assert [one.id for one in db.replies.recent("console", 9)] == [better.id, asked_again.id]
    assert idle.id not in repr(db.replies.recent("console", 9))
