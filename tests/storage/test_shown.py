"""Which messages show which reply, and which stored text came from which message."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import Conflict, NotFound
from core.generation import Message
from core.records import Reply
from storage.database import Database
from tests.storage.conftest import Chat, chat_in
from tests.storage.test_people import bytes_on_disk

PROMPT = (Message("user", "NEEDLE"),)


def reply_to(chat: Chat, *sources: str, text: str = "NEEDLE", **about: object) -> Reply:
    """Store a finished reply made from these messages, as a platform with a history does."""
    values: dict[str, object] = {"authors": [chat.person.id], "prompt": PROMPT, **about}
    return chat.finish(chat.start(sources=sources, **values), text, in_history=False)  # type: ignore[arg-type]


def ids(db: Database, reply: Reply) -> list[str]:
    return [shown.message_id for shown in db.replies.messages(reply.id)]


def test_a_reply_not_kept_has_no_word(path: Path) -> None:
    """Its ids, counts and votes are stored; neither prompt, text, hash, source nor turn is."""
    with Database(path) as db:
        chat = chat_in(db)
        reply = chat.finish(
            chat.start(PROMPT, authors=[chat.person.id], kept=False, sources=["1"]), "NEEDLE"
        )
        assert (reply.kept, reply.prompt, reply.text, reply.tokens) == (False, (), "", 2)
        assert db.replies.authors(reply.id) == (chat.person.id,)
        assert db.conversations.history(chat.conversation, limit=9) == []
        assert db.replies.forget_message("1")["replies"] == 0
        db.feedback.vote(reply.id, chat.person.id, "up")
        (row,) = db.feedback.rows("console")
        assert not row.all_consented and db.feedback.rows("console", consented_only=True) == []
        with pytest.raises(Conflict, match="nothing of this conversation is kept"):
            db.feedback.correct(reply.id, chat.person.id, "NEEDLE")
    assert b"NEEDLE" not in bytes_on_disk(path)


def test_a_pair_with_a_reply_not_kept_does_not_train(db: Database, chat: Chat) -> None:
    """A preference is stored by ids, but the words of one side are missing."""
    kept, other = reply_to(chat), reply_to(chat, kept=False)
    db.feedback.prefer(kept.id, chat.person.id, other.id)
    (row,) = db.feedback.rows("console")
    assert row.other_text is None and not row.all_consented


def test_a_platform_with_a_history_gets_no_turn(db: Database, chat: Chat) -> None:
    """The reply is kept, the history is the platform's."""
    assert reply_to(chat, text="kept").text == "kept"
    assert db.conversations.history(chat.conversation, limit=9) == []


def test_another_version_takes_the_messages_over(db: Database, chat: Chat) -> None:
    """A shorter version leaves no page that counts as the older; reactions stay on the rest."""
    old = reply_to(chat)
    db.replies.show(old.id, "c", ["1", "2"])
    db.feedback.react("1", chat.person.id, "up")
    new = reply_to(chat, replaces=old.id, authors=[])
    for _ in range(2):
        db.replies.show(new.id, "c", ["1"])
    assert (ids(db, old), ids(db, new)) == ([], ["1"])
    shown = db.replies.of_message("1")
    assert shown is not None and shown.id == new.id and db.replies.of_message("2") is None
    assert db.feedback.reactions("1") == {("ada", "up")}
    assert [one.id for one in db.replies.versions(old.id)] == [old.id, new.id]
    with pytest.raises(NotFound, match="'r_0'"):
        db.replies.show("r_0", "c", ["1"])


def test_messages_come_newest_first(db: Database, chat: Chat) -> None:
    """After a time away the newest are looked at first, within a limit."""
    for number in range(3):
        db.replies.show(reply_to(chat).id, "c", [f"{number}"])
    assert [one.message_id for one in db.replies.shown_since("2000", limit=2)] == ["2", "1"]
    assert db.replies.shown_since("2999") == []


def test_messages_come_with_the_place_of_their_conversation(db: Database, chat: Chat) -> None:
    """Whose they are is known by where they were said; a conversation without a key has none."""
    db.replies.show(reply_to(chat).id, "c", ["1"])
    place = db.conversations.open("console", platform_key="discord/7/8/9")
    there = replace(chat, conversation=place)
    db.replies.show(reply_to(there).id, "c", ["2"])
    assert {one.message_id: one.place for one in db.replies.shown_since("2000")} == {
        "1": "",
        "2": "discord/7/8/9",
    }
    assert db.conversations.by_place("discord") == {"discord/7": 1}


@pytest.mark.parametrize("message", ["question", "answer"])
def test_a_deleted_message_takes_its_text_along(path: Path, message: str) -> None:
    """What it was a source of or showed goes with feedback, versions and matches; twice is once."""
    with Database(path) as db:
        chat = chat_in(db)
        old = reply_to(chat, "question")
        db.replies.show(old.id, "c", ["answer"])
        new = reply_to(chat, replaces=old.id, authors=[])
        db.replies.show(new.id, "c", ["answer"])
        db.feedback.correct(new.id, chat.person.id, "NEEDLE")
        trial = db.trials.ensure("console", "arena", candidate="a", reference="base")
        match = db.trials.add_match(
            trial.id, candidate_reply=new.id, reference_reply=old.id, candidate_first=True
        )
        counts = db.replies.forget_message(message)
        assert (counts["replies"], counts["feedback"]) == (2, 1)
        assert db.replies.forget_message(message)["replies"] == 0
        with pytest.raises(NotFound, match="no such match"):
            db.trials.match(match.id)
    assert b"NEEDLE" not in bytes_on_disk(path)


def test_other_messages_keep_their_text(db: Database, chat: Chat) -> None:
    """A message nobody knows, or another one, takes nothing along."""
    reply = reply_to(chat, "1")
    assert db.replies.forget_message("2")["replies"] == 0
    assert db.replies.get(reply.id) == reply
