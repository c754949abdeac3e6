"""Conversations and replies: pinned before the first token, shown once, newest version only."""

from __future__ import annotations

import pytest

from core.errors import NotFound
from core.generation import Message, Sampling
from storage.database import Database
from tests.storage.conftest import Chat


def test_a_reply_is_stored_before_and_after(db: Database, chat: Chat) -> None:
    """What was asked for comes back as it went in, then with the text."""
    prompt = (Message("system", "be kind"), Message("user", "naïve 👍\x00"))
    pending = chat.start(prompt, authors=[chat.person.id])
    assert (pending.state, pending.prompt, pending.text) == ("pending", prompt, "")
    assert pending.sampling == Sampling(seed=7, stop=("\n",))
    done = chat.finish(pending, "hello 🙂")
    assert (done.state, done.text, done.seed, done.finish_reason) == ("done", "hello 🙂", 7, "stop")
    assert db.replies.latest(chat.conversation) == done and db.replies.pending() == []


def test_finishing_twice_changes_nothing(db: Database, chat: Chat) -> None:
    """The second finish of a reply returns the first one's row, and there is one turn."""
    reply = chat.start(authors=[chat.person.id])
    first = chat.finish(reply, "one")
    assert chat.finish(reply, "two") == first
    assert [turn.text for turn in db.conversations.history(chat.conversation, limit=9)] == ["one"]


def test_a_reply_written_again_takes_the_place_of_the_old(db: Database, chat: Chat) -> None:
    """In the history stands the newest version, in the old one's place, whichever ended last."""
    old = chat.say("first", "one")
    chat.say("second", "other")
    two = chat.start(authors=[], replaces=old.id)
    three = chat.start(authors=[], replaces=old.id)
    chat.finish(three, "three")
    chat.finish(two, "two")
    texts = [turn.text for turn in db.conversations.history(chat.conversation, limit=9)]
    assert texts == ["first", "three", "second", "other"]


def test_a_reply_written_again_has_the_same_authors(db: Database, chat: Chat) -> None:
    """Consent for the prompt counts for the new version too, and a thumb up makes a pair."""
    old = chat.say("first", "one", by=chat.someone("bob"))
    new = chat.finish(chat.start(old.prompt, authors=[], replaces=old.id), "two")
    db.feedback.vote(new.id, chat.person.id, "up")
    (row,) = db.feedback.rows("console")
    assert row.other_text == "one" and not row.all_consented


def test_after_a_restart_pending_replies_have_failed(db: Database, chat: Chat) -> None:
    """Nothing stays pending for ever; a reply that was done is left alone."""
    done, pending = chat.say("hi"), chat.start(authors=[])
    assert [reply.id for reply in db.replies.pending()] == [pending.id]
    assert db.replies.fail_pending("restarted") == 1
    assert db.replies.get(pending.id).state == "failed"
    assert db.replies.fail(done.id, "late").state == "done"
    assert [reply.id for reply in db.replies.recent("console", 9)] == [done.id]


def test_unknown_ids_are_named(db: Database, chat: Chat) -> None:
    """A reply or conversation that is not there is told by its id."""
    with pytest.raises(NotFound, match="reply 'r_0'"):
        db.replies.get("r_0")
    with pytest.raises(NotFound, match="'r_0': there is no such reply to write again"):
        chat.start(authors=[], replaces="r_0")
    with pytest.raises(NotFound, match="conversation 'c_0'"):
        db.conversations.history("c_0", limit=1)
    with pytest.raises(NotFound, match="conversation 'c_0'"):
        db.scopes.of_conversation("c_0")


def test_a_lone_surrogate_is_stored_as_a_character(db: Database, chat: Chat) -> None:
    """Half of a surrogate pair is no text; it never stops a reply from being stored."""
    assert chat.say("half \ud83d", "\udc4d").text == "?"


def test_a_platform_key_reopens_its_conversation(db: Database, chat: Chat) -> None:
    """The same channel goes on where it was; another scope's channel is another conversation."""
    db.scopes.ensure("guild")
    first = db.conversations.open("console", platform_key="channel-1")
    assert db.conversations.open("console", platform_key="channel-1") == first
    assert db.conversations.open("guild", platform_key="channel-1") != first
    assert db.scopes.of_conversation(first).name == "console"


def test_a_reset_hides_what_was_said(db: Database, chat: Chat) -> None:
    """After a reset the history is empty and positions go on."""
    chat.say("before")
    db.conversations.reset(chat.conversation)
    assert db.conversations.history(chat.conversation, limit=9) == []
    chat.say("after")
    turns = db.conversations.history(chat.conversation, limit=9)
    assert [(turn.position, turn.text) for turn in turns] == [(2, "after"), (3, "an answer")]


def test_the_history_is_bounded(db: Database, chat: Chat) -> None:
    """Only the last turns come, oldest first."""
    for number in range(5):
        chat.say(f"{number}")
    turns = db.conversations.history(chat.conversation, limit=3)
    assert [turn.text for turn in turns] == ["an answer", "4", "an answer"]


def test_old_conversations_without_feedback_expire(db: Database, chat: Chat) -> None:
    """What nobody judged goes after its time; what somebody judged stays."""
    judged = chat.say("judged")
    db.feedback.vote(judged.id, chat.person.id, "up")
    other = db.conversations.open("console")
    db.conversations.add_turn(other, role="user", text="idle", person_id=chat.person.id)
    assert db.conversations.expire("2020-01-01T00:00:00.000000Z") == 0
    assert db.conversations.expire("2999-01-01T00:00:00.000000Z") == 1
    assert len(db.conversations.history(chat.conversation, limit=9)) == 2
    with pytest.raises(NotFound, match="may have expired"):
        db.conversations.history(other, limit=1)


def test_conversations_are_listed_by_what_was_said_first(db: Database, chat: Chat) -> None:
    """The newest first; one in which nothing was said and another person's are not listed."""
    chat.say("First question, " + "x" * 200)
    second = Chat(db, chat.person, db.conversations.open("console", person_id=chat.person.id))
    second.say("Second question")
    db.conversations.open("console", person_id=chat.person.id)
    stranger = chat.someone("eve")
    found = db.conversations.list("console", chat.person.id, limit=9)
    assert [talk.title[:15] for talk in found] == ["Second question", "First question,"]
    assert len(found[1].title) == 80
    assert db.conversations.list("console", stranger.id, limit=9) == []


def test_a_deleted_conversation_takes_what_was_said_of_it(db: Database, chat: Chat) -> None:
    """Replies and votes go, the event stays, and deleting again changes nothing."""
    reply = chat.say("hi")
    db.feedback.vote(reply.id, chat.person.id, "up")
    counts = db.conversations.delete(chat.conversation, actor="ada")
    assert (counts["replies"], counts["feedback"]) == (1, 1)
    assert db.conversations.delete(chat.conversation, actor="ada")["conversations"] == 0
    actions = [event.action for event in db.events.list(subject=chat.conversation)]
    assert actions == ["conversation.removed"]


def test_all_versions_of_a_conversation_are_read_in_any_state(db: Database, chat: Chat) -> None:
    """Failed, pending and done, oldest first, each with the first of its versions."""
    first = chat.say("hi")
    again = chat.start(authors=[], replaces=first.id)
    failed = chat.start(authors=[])
    db.replies.fail(failed.id, "no")
    found = db.replies.of_conversation(chat.conversation)
    assert [reply.id for reply in found] == [first.id, again.id, failed.id]
    assert [reply.origin for reply in found] == [first.id, first.id, failed.id]
    counted = db.replies.states("console", since="2000")
    assert counted == {"done": 1, "pending": 1, "failed": 1}
