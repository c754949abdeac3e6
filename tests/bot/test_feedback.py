"""Feedback: what people say of replies, checked and stored."""

from __future__ import annotations

import pytest

from bot.world import World
from core.errors import InvalidInput, NotFound
from core.records import Person, Reply


async def one_reply(world: World, person: Person) -> Reply:
    """Have one finished reply."""
    conversation = await world.chat.open("console", person)
    return await (await world.chat.say(conversation, person.id, "Hello")).finished()


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
        await world.feedback.correct(reply.id, ada.id, f" {reply.text} ")


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
