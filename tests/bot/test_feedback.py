"""Feedback: what people say of replies, checked and stored."""

from __future__ import annotations

import pytest

from bot.feedback import NeedsConsent, NotKept
from bot.memory import Ask
from bot.world import World
from core.errors import Conflict, InvalidInput, NotFound
from core.generation import Message
from core.records import Feedback, Person, Reply


async def one_reply(world: World, person: Person) -> Reply:
    """Have one finished reply."""
    conversation = await world.chat.open("console", person)
    return await (await world.chat.say(conversation, person.id, "Hello")).finished()


async def two_versions(world: World, person: Person) -> tuple[Reply, Reply]:
    """Have a reply and another version of it."""
    old = await one_reply(world, person)
    return old, await (await world.chat.again(old.id, person.id)).finished()


async def one_reply_in_memory(world: World, person: Person) -> Reply:
    """Have a finished reply whose words are not stored."""
    ask = Ask(
        scope="console",
        conversation_id=await world.chat.open("console", person),
        prompt=(Message("user", "Hello"),),
        authors=(person.id,),
        kept=False,
        in_history=False,
    )
    return await (await world.chat.write(ask)).finished()


async def stranger(world: World) -> Person:
    """A person of Discord who never decided."""
    return await world.database.run(lambda db: db.people.ensure("discord", "7"))


async def said_of(world: World, *replies: Reply) -> list[Feedback]:
    """Return everything said of these replies."""
    return await world.database.run(
        lambda db: [row for reply in replies for row in db.feedback.of_reply(reply.id)]
    )


async def preferences(world: World, *replies: Reply) -> set[tuple[str, str | None]]:
    """Return winner and loser of every stored preference."""
    rows = await said_of(world, *replies)
    return {(row.reply_id, row.other_reply_id) for row in rows if row.kind == "preference"}


async def test_a_changed_mind_leaves_one_vote(world: World, ada: Person) -> None:
    """Up, then down with a reason: one row, the last one, and the history in the events."""
    reply = await one_reply(world, ada)
    await world.feedback.up(reply.id, ada.id)
    await world.feedback.down(reply.id, ada.id, "too long")
    rows = await world.database.run(lambda db: db.feedback.of_reply(reply.id))
    assert [(row.kind, row.reasons) for row in rows] == [("down", ("too long",))]


async def test_a_withdrawn_vote_is_gone(world: World, ada: Person) -> None:
    """Withdrawing removes the row; withdrawing again says there was none."""
    reply = await one_reply(world, ada)
    await world.feedback.up(reply.id, ada.id)
    assert await world.feedback.withdraw(reply.id, ada.id)
    assert not await world.feedback.withdraw(reply.id, ada.id)
    assert await world.database.run(lambda db: db.feedback.of_reply(reply.id)) == []


@pytest.mark.parametrize("text", ["", "   ", "x" * 5000])
async def test_a_useless_correction_is_refused(world: World, ada: Person, text: str) -> None:
    """Empty and overlong corrections are refused with a word."""
    reply = await one_reply(world, ada)
    with pytest.raises(InvalidInput, match=r"correction"):
        await world.feedback.correct(reply.id, ada.id, text)


async def test_an_unchanged_correction_is_refused(world: World, ada: Person) -> None:
    """A correction equal to the reply is a 👍 in disguise."""
    reply = await one_reply(world, ada)
    with pytest.raises(InvalidInput, match="the same as the reply"):
        await world.feedback.correct(reply.id, ada.id, f" {reply.text.replace(chr(10), chr(13))} ")


async def test_an_unknown_reply_cannot_be_voted_on(world: World, ada: Person) -> None:
    """A vote on nothing says so."""
    with pytest.raises(NotFound, match="r_nothing"):
        await world.feedback.up("r_nothing", ada.id)


async def test_five_hundred_votes_of_one_person_are_one(world: World, ada: Person) -> None:
    """However often somebody presses, one vote stands."""
    reply = await one_reply(world, ada)
    for index in range(500):
        await (world.feedback.up if index % 2 else world.feedback.down)(reply.id, ada.id)
    rows = await world.database.run(lambda db: db.feedback.of_reply(reply.id))
    assert [row.kind for row in rows] == ["up"]


async def test_a_reply_that_is_not_whole_cannot_be_voted_on(world: World, ada: Person) -> None:
    """While a reply is being written a vote is refused, and nothing is stored."""
    conversation = await world.chat.open("console", ada)
    writing = await world.chat.say(conversation, ada.id, "Hello")
    with pytest.raises(Conflict, match="not finished"):
        await world.feedback.up(writing.reply.id, ada.id)
    assert await said_of(world, await writing.finished()) == []


async def test_a_second_press_keeps_the_reasons(world: World, ada: Person) -> None:
    """👎 again says nothing new; 👍 has no use for the reasons."""
    reply = await one_reply(world, ada)
    await world.feedback.down(reply.id, ada.id, "rude")
    assert (await world.feedback.down(reply.id, ada.id)).reasons == ("rude",)
    assert (await world.feedback.up(reply.id, ada.id)).reasons == ()


async def test_several_reasons_fit_one_vote(world: World, ada: Person) -> None:
    """Reasons are added and taken off one by one, or set together."""
    reply = await one_reply(world, ada)
    await world.feedback.down(reply.id, ada.id)
    await world.feedback.toggle_tag(reply.id, ada.id, "too long")
    both = await world.feedback.toggle_tag(reply.id, ada.id, "wrong")
    assert both.reasons == ("wrong", "too long")
    assert (await world.feedback.toggle_tag(reply.id, ada.id, "wrong")).reasons == ("too long",)
    assert (await world.feedback.tags(reply.id, ada.id, ["rude", " "])).reasons == ("rude",)


async def test_a_reason_needs_a_thumb_down(world: World, ada: Person) -> None:
    """Who voted 👍, or not at all, has nothing to give a reason for."""
    reply = await one_reply(world, ada)
    await world.feedback.up(reply.id, ada.id)
    with pytest.raises(Conflict, match="press 👎 first"):
        await world.feedback.tags(reply.id, ada.id, ["rude"])


@pytest.mark.parametrize(
    ("on_old", "on_new", "better"),
    [
        ("", "up", "new"),
        ("down", "up", "new"),
        ("down", "", "new"),
        ("up", "", "old"),
        ("up", "down", "old"),
        ("", "down", "old"),
        ("up", "up", ""),
        ("down", "down", ""),
        ("", "", ""),
    ],
)
async def test_votes_on_two_versions_make_a_pair(
    world: World, ada: Person, on_old: str, on_new: str, better: str
) -> None:
    """The version with the better vote is preferred; equal votes say nothing of the two."""
    old, new = await two_versions(world, ada)
    for reply, kind in ((new, on_new), (old, on_old)):
        if kind:
            await (world.feedback.up if kind == "up" else world.feedback.down)(reply.id, ada.id)
    expected = {"new": {(new.id, old.id)}, "old": {(old.id, new.id)}, "": set()}[better]
    assert await preferences(world, old, new) == expected


async def test_a_pair_follows_every_change_of_the_votes(world: World, ada: Person) -> None:
    """A changed mind turns the pair round, and the last withdrawn vote removes it."""
    old, new = await two_versions(world, ada)
    await world.feedback.up(new.id, ada.id)
    await world.feedback.up(old.id, ada.id)
    assert await preferences(world, old, new) == set()
    await world.feedback.down(new.id, ada.id)
    assert await preferences(world, old, new) == {(old.id, new.id)}
    await world.feedback.withdraw(old.id, ada.id)
    assert await preferences(world, old, new) == {(old.id, new.id)}
    await world.feedback.withdraw(new.id, ada.id)
    assert await preferences(world, old, new) == set()


async def test_one_person_makes_no_pair_for_another(world: World, ada: Person) -> None:
    """Votes of two people on two versions are two opinions, not a comparison by one."""
    bob = await stranger(world)
    old, new = await two_versions(world, ada)
    await world.feedback.up(new.id, ada.id)
    await world.feedback.up(old.id, bob.id)
    assert await preferences(world, old, new) == {(new.id, old.id), (old.id, new.id)}


async def test_a_version_between_two_is_held_against_the_one_it_replaced(
    world: World, ada: Person
) -> None:
    """Of three versions the liked middle one is preferred over the first, whatever came later."""
    first, second = await two_versions(world, ada)
    third = await (await world.chat.again(second.id, ada.id)).finished()
    await world.feedback.down(third.id, ada.id)
    await world.feedback.up(second.id, ada.id)
    assert await preferences(world, first, second, third) == {(second.id, first.id)}


async def test_settling_again_changes_nothing(world: World, ada: Person) -> None:
    """The same votes leave the same rows, and no more events."""
    old, new = await two_versions(world, ada)
    await world.feedback.up(new.id, ada.id)
    before = await said_of(world, old, new)
    events = await world.database.run(lambda db: len(db.events.list()))
    await world.feedback.up(new.id, ada.id)
    assert await said_of(world, old, new) == before
    assert await world.database.run(lambda db: len(db.events.list())) == events


async def test_a_choice_between_two_replies_is_no_matter_of_votes(
    world: World, ada: Person
) -> None:
    """What a person chose in an arena stays, however they vote on the two."""
    one, other = await one_reply(world, ada), await one_reply(world, ada)
    await world.feedback.prefer(one.id, ada.id, other.id)
    await world.feedback.down(one.id, ada.id)
    await world.feedback.up(other.id, ada.id)
    assert await preferences(world, one, other) == {(one.id, other.id)}


async def test_only_answers_to_one_question_are_compared(world: World, ada: Person) -> None:
    """A preference across questions would teach nothing but noise."""
    one = await one_reply(world, ada)
    conversation = await world.chat.open("console", ada)
    other = await (await world.chat.say(conversation, ada.id, "Something else")).finished()
    with pytest.raises(InvalidInput, match="do not answer the same question"):
        await world.feedback.prefer(one.id, ada.id, other.id)


async def test_reactions_are_votes_on_what_the_message_shows(world: World, ada: Person) -> None:
    """A reaction votes, the same one again changes nothing, and taking it back withdraws."""
    reply = await one_reply(world, ada)
    await world.database.run(lambda db: db.replies.show(reply.id, "1", ["11"]))
    vote = await world.feedback.react("11", ada.id, "up")
    assert vote is not None
    assert vote.kind == "up"
    assert await world.feedback.react("11", ada.id, "up") is None
    assert await world.feedback.unreact("11", ada.id, "up") is None
    assert await said_of(world, reply) == []
    assert await world.feedback.react("12", ada.id, "up") is None


async def test_reactions_keep_reasons_and_make_pairs(world: World, ada: Person) -> None:
    """A 👎 by reaction leaves the reasons given by button, and counts in pairs as any vote."""
    old, new = await two_versions(world, ada)
    await world.database.run(lambda db: db.replies.show(old.id, "1", ["11"]))
    await world.feedback.down(old.id, ada.id, "rude")
    await world.feedback.react("11", ada.id, "down")
    (vote,) = (row for row in await said_of(world, old) if row.kind == "down")
    assert vote.reasons == ("rude",)
    assert await preferences(world, old, new) == {(new.id, old.id)}
    await world.feedback.sync_reactions("11", {"up": [], "down": []})
    assert await preferences(world, old, new) == set()


async def test_a_correction_needs_its_writers_consent(world: World, ada: Person) -> None:
    """Who did not opt in leaves no words, also on a reply that is kept."""
    reply, bob = await one_reply(world, ada), await stranger(world)
    with pytest.raises(NeedsConsent, match="opt in"):
        await world.feedback.correct(reply.id, bob.id, "NEEDLE")
    assert await said_of(world, reply) == []
    assert b"NEEDLE" not in world.database.path.read_bytes()


async def test_a_reply_that_is_not_kept_cannot_be_corrected(world: World, ada: Person) -> None:
    """Votes on it count; a correction is refused, since nothing of it is stored."""
    reply = await one_reply_in_memory(world, ada)
    assert (await world.feedback.up(reply.id, ada.id)).kind == "up"
    with pytest.raises(NotKept, match="nothing of this conversation is kept"):
        await world.feedback.correct(reply.id, ada.id, "better")
