"""People: consent is theirs, and forgetting them leaves no byte."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from core.errors import NotFound
from storage.database import Database
from tests.storage.conftest import Chat, adapter, chat_in


def bytes_on_disk(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))


def test_a_person_is_made_once(db: Database) -> None:
    """The same platform id is the same person, with the newest name and time."""
    first = db.people.ensure("discord", "1", display_name="Ada", at="2026-01-01T00:00:00.000000Z")
    again = db.people.ensure("discord", "1", at="2026-01-02T00:00:00.000000Z")
    assert (again.id, again.display_name, again.consent) == (first.id, "Ada", "unknown")
    assert again.last_seen == "2026-01-02T00:00:00.000000Z"


def test_consent_is_taken_only_while_unknown(db: Database) -> None:
    """A refusal is never overwritten by meeting the person again."""
    person = db.people.ensure("discord", "1", consent="given")
    assert person.consent == "given" and person.consent_at
    db.people.set_consent(person.id, "refused", actor=person.id)
    assert db.people.ensure("discord", "1", consent="given").consent == "refused"
    actions = [event.action for event in db.events.list(subject=person.id)]
    assert actions == ["consent.refused", "consent.given"]


@pytest.mark.parametrize("text", ["discord:1", "1", "Ada"])
def test_a_person_is_found_by_any_of_their_names(db: Database, text: str) -> None:
    """By id, platform and id, platform id or display name, exactly."""
    person = db.people.ensure("discord", "1", display_name="Ada")
    assert db.people.find(text) == db.people.find(person.id) == [person]
    assert db.people.find("ada") == []


def test_an_export_holds_everything(db: Database, chat: Chat) -> None:
    """Turns, replies, votes, corrections, runs and events of the person, and of nobody else."""
    bob = chat.someone("bob")
    reply = chat.say("my words")
    row = db.feedback.correct(reply.id, chat.person.id, "my correction")
    run = db.runs.create("console", recipe="kto", owner_pid=1)
    db.runs.set_examples(run.id, [row.id])
    held = repr(db.people.export(chat.person.id))
    assert all(text in held for text in ("my words", "my correction", "an answer", run.id, "Ada"))
    assert "my words" not in repr(db.people.export(bob.id))


def test_forgetting_removes_the_bytes(path: Path) -> None:
    """After forgetting, no byte of the person is in the file or its log; the others' rows stay."""
    draw = random.Random(3)
    with Database(path) as db:
        chat = chat_in(db)
        bob = chat.someone("bob-NEEDLE", consent="given")
        alone = db.conversations.open("console", person_id=bob.id, platform_key="dm-NEEDLE")
        for number in range(150):
            by, word = draw.choice([(bob, "NEEDLE"), (chat.person, "hay")])
            text = " ".join([word] * draw.randint(1, 900))
            reply = chat.finish(chat.start(authors=[by.id]), f"about {text}")
            db.conversations.add_turn(chat.conversation, role="user", text=text, person_id=by.id)
            db.feedback.correct(reply.id, by.id, f"{number} {text}")
        db.conversations.add_turn(alone, role="user", text="NEEDLE", person_id=bob.id)
        assert b"NEEDLE" in bytes_on_disk(path)
        removed = db.people.forget(bob.id, actor="cli")
        assert b"NEEDLE" not in bytes_on_disk(path)
        assert removed["conversations"] == 1 and removed["replies"] > 30
        assert {row.feedback.person_id for row in db.feedback.rows("console")} == {chat.person.id}
    assert b"NEEDLE" not in bytes_on_disk(path) and b"hay" in bytes_on_disk(path)


def test_forgetting_takes_what_was_shown_of_the_person(db: Database, chat: Chat) -> None:
    """A reply whose prompt held their words goes, with everybody's feedback on it."""
    bob = chat.someone("bob")
    chat.say("bob's words", by=bob)
    later = chat.say("ada's words")  # bob's words are in its prompt
    db.feedback.vote(later.id, chat.person.id, "up")
    removed = db.people.forget(bob.id, actor=bob.id)
    assert (removed["feedback"], removed["replies"], removed["conversations"]) == (1, 2, 0)
    turns = db.conversations.history(chat.conversation, limit=9)
    assert [turn.text for turn in turns] == ["ada's words"]


def test_forgetting_names_the_adapters_that_learnt(db: Database, chat: Chat) -> None:
    """Also where the vote was withdrawn since, or another person voted on their words."""
    bob = chat.someone("bob", consent="given")
    row = db.feedback.vote(chat.say("bob's words", by=bob).id, chat.person.id, "up")
    run = db.runs.create("console", recipe="kto", owner_pid=1)
    db.runs.set_examples(run.id, [row.id])
    record = adapter(1, run_id=run.id)
    db.runs.publish(run.id, record, verdict_state="promoted", promote=True, actor="cli")
    db.feedback.withdraw(row.reply_id, chat.person.id)
    assert [run.id for run in db.runs.of_person(bob.id)] == [run.id]
    assert db.people.forget(bob.id, actor="cli")["adapters_affected"] == 1
    assert [each.name for each in db.adapters.needing_retraining("console")] == ["console@v1"]


def test_a_run_that_ends_after_forgetting_is_marked_too(db: Database, chat: Chat) -> None:
    """An adapter that was being trained on the person's words is to be retrained as well."""
    row = db.feedback.vote(chat.say("words").id, chat.person.id, "up")
    run = db.runs.create("console", recipe="kto", owner_pid=1)
    db.runs.set_examples(run.id, [row.id])
    db.people.forget(chat.person.id, actor="cli")
    db.adapters.add(adapter(1, run_id=run.id))
    assert [each.name for each in db.adapters.needing_retraining()] == ["console@v1"]


def test_the_forgotten_come_back_as_somebody_new(db: Database, chat: Chat) -> None:
    """A row without personal data stays for the audit trail; the old names find nobody."""
    db.people.forget(chat.person.id, actor="cli")
    ghost = db.people.get(chat.person.id)
    assert (ghost.platform, ghost.display_name, ghost.consent) == ("forgotten", "", "refused")
    assert db.people.find("ada") == db.people.find("Ada") == db.people.list() == []
    back = db.people.ensure("console", "ada")
    assert back.id != ghost.id and back.consent == "unknown"


def test_an_unknown_person_is_named(db: Database) -> None:
    """Forgetting nobody is an error, not a success."""
    with pytest.raises(NotFound, match="'p_0': there is nobody"):
        db.people.forget("p_0", actor="cli")
