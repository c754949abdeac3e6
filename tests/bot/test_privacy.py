"""A person's say over what is kept: consent, a copy, taking it back, being forgotten."""

from __future__ import annotations

import json
import os

import pytest

from bot.memory import Ask
from bot.privacy import export_person, forget, holding, opt_in, opt_out
from bot.world import World
from core.errors import NotFound
from core.generation import Message
from core.records import Person, Run
from storage.database import Database


async def talk(world: World, person: Person, text: str) -> str:
    """Let a person say something; return the id of the reply, voted on and corrected."""
    conversation = await world.chat.open("console", person)
    writing = await world.chat.say(conversation, person.id, text)
    reply = await writing.finished()
    await world.feedback.down(reply.id, person.id, "wrong")
    await world.feedback.correct(reply.id, person.id, f"{text} corrected")
    return reply.id


def two_runs(db: Database, first: str, second: str) -> tuple[Run, Run]:
    """Queue two runs in training, each learning from one person's feedback on a reply."""
    runs = []
    for scope, person_id in (("console", first), ("other", second)):
        db.scopes.ensure(scope)
        run = db.runs.create(scope, recipe="kto", owner_pid=os.getpid())
        rows = db.people.export(person_id)["feedback"]
        db.runs.set_examples(run.id, [row["id"] for row in rows])
        runs.append(db.runs.advance(run.id, "training"))
    return runs[0], runs[1]


async def test_holding_counts_what_is_kept(world: World, ada: Person) -> None:
    """Stored replies, votes and corrections are counted apart."""
    await talk(world, ada, "Hello NEEDLE")
    held = await holding(world.database, ada.id)
    assert (held.consent, held.replies, held.votes, held.corrections) == ("given", 1, 1, 1)


async def test_an_export_is_readable_json(world: World, ada: Person) -> None:
    """The file is indented, in plain letters, and holds the person's words."""
    await talk(world, ada, "Grüße NEEDLE")
    data = await export_person(world.database, ada.id)
    assert "Grüße NEEDLE" in data.decode()
    assert b'\n  "' in data
    assert json.loads(data)["person"]["id"] == ada.id


async def test_opting_in_stores_who_decided(world: World) -> None:
    """Consent is the person's own act, in the audit trail too."""
    bob = await world.database.run(lambda db: db.people.ensure("discord", "7"))
    assert bob.consent == "unknown"
    assert (await opt_in(world.database, bob.id)).consent == "given"
    (event,) = await world.database.run(lambda db: db.events.list(subject=bob.id))
    assert (event.actor, event.action) == (bob.id, "consent.given")


async def test_opting_out_takes_the_words_from_database_and_memory(
    world: World, ada: Person
) -> None:
    """Text is gone from the file and from memory at once; the vote stays."""
    reply_id = await talk(world, ada, "Hello NEEDLE")
    assert world.chat.memory.get(reply_id)
    done = await opt_out(
        world.database,
        world.settings.data_dir,
        ada.id,
        actor=ada.id,
        memories=(world.chat.memory,),
    )
    assert done.removed["redacted"] == 1
    assert world.chat.memory.get(reply_id) is None
    held = await holding(world.database, ada.id)
    assert (held.consent, held.replies, held.votes, held.corrections) == ("refused", 0, 1, 0)
    assert b"NEEDLE" not in world.database.path.read_bytes()


async def test_forgetting_takes_everything_and_may_be_repeated(world: World, ada: Person) -> None:
    """Nothing is left in file or memory; the command line, without a memory, does as much."""
    reply_id = await talk(world, ada, "Hello NEEDLE")
    data_dir = world.settings.data_dir
    done = await forget(
        world.database, data_dir, ada.id, actor="cli", memories=(world.chat.memory,)
    )
    assert done.removed["replies"] == 1
    assert world.chat.memory.get(reply_id) is None
    assert b"NEEDLE" not in world.database.path.read_bytes()
    again = await forget(world.database, data_dir, ada.id, actor="cli")
    assert again.removed["replies"] == 0


async def test_words_in_memory_alone_are_forgotten_too(world: World, ada: Person) -> None:
    """What was never stored goes from memory with its author."""
    conversation = await world.chat.open("console", ada)
    prompt = (Message("user", "only in memory"),)
    ask = Ask("console", conversation, prompt, authors=(ada.id,), kept=False)
    writing = await world.chat.write(ask)
    await writing.finished()
    assert len(world.chat.memory) == 1
    data_dir = world.settings.data_dir
    await opt_out(world.database, data_dir, ada.id, actor=ada.id, memories=(world.chat.memory,))
    assert len(world.chat.memory) == 0


async def test_a_run_that_learns_from_a_person_is_stopped_when_they_opt_out(
    world: World, ada: Person
) -> None:
    """Its directory, which holds their words, goes; a run without them goes on."""
    bob = await world.database.run(lambda db: db.people.ensure("console", "bob", consent="given"))
    await talk(world, ada, "Hello NEEDLE")
    await talk(world, bob, "Hello")
    theirs, others = await world.database.run(lambda db: two_runs(db, ada.id, bob.id))
    directory = world.settings.data_dir / theirs.directory
    directory.mkdir(parents=True)
    (directory / "train.jsonl").write_text("NEEDLE")
    done = await opt_out(world.database, world.settings.data_dir, ada.id, actor=ada.id)
    assert done.stopped_runs == [theirs.id]
    assert not directory.exists()
    going = await world.database.run(lambda db: db.runs.get(others.id))
    assert not going.cancel_requested


async def test_somebody_unknown_cannot_be_forgotten(world: World) -> None:
    """A person that does not exist is a plain refusal."""
    with pytest.raises(NotFound, match="there is nobody with this id"):
        await forget(world.database, world.settings.data_dir, "p_0", actor="cli")
