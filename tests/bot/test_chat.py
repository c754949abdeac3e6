"""The chat: stored before it is answered, answered by one adapter, kept whoever stops reading."""

from __future__ import annotations

import asyncio

import pytest

from bot.memory import Ask
from bot.world import World
from core.errors import EngineBusy, InvalidInput
from core.generation import GenerationRequest, Message, Sampling
from core.records import Person

SCOPE = "console"


async def test_a_reply_streams_what_is_stored(world: World, ada: Person) -> None:
    """The pieces concatenate to the text of the row, which names its adapter."""
    conversation = await world.chat.open(SCOPE, ada)
    writing = await world.chat.say(conversation, ada.id, "Hello there")
    text = "".join([piece async for piece in writing])
    reply = await writing.finished()
    stored = await world.database.run(lambda db: db.replies.get(reply.id))
    assert (stored.text, stored.state, stored.adapter) == (text, "done", "base")
    assert stored.prompt[-1].content == "Hello there"


async def test_the_next_message_sees_the_last_reply(world: World, ada: Person) -> None:
    """The prompt of the second reply holds the whole conversation."""
    conversation = await world.chat.open(SCOPE, ada)
    first = await (await world.chat.say(conversation, ada.id, "One")).finished()
    second = await (await world.chat.say(conversation, ada.id, "Two")).finished()
    assert [turn.content for turn in second.prompt] == ["One", first.text, "Two"]


async def test_a_reply_nobody_reads_is_stored(world: World, ada: Person) -> None:
    """Who stops listening loses nothing."""
    conversation = await world.chat.open(SCOPE, ada)
    writing = await world.chat.say(conversation, ada.id, "Hello")
    async for _ in writing:
        break
    assert (await writing.finished()).state == "done"


async def test_a_stopped_reply_keeps_what_is_there(world: World, ada: Person) -> None:
    """Cancelling ends the reply with its own finish reason."""
    conversation = await world.chat.open(SCOPE, ada)
    writing = await world.chat.say(conversation, ada.id, "Hello")
    writing.cancel()
    assert (await writing.finished()).finish_reason == "cancelled"


@pytest.mark.parametrize("text", ["", "  \n ", "\x00", "x" * 3000])
async def test_what_cannot_be_answered_is_refused_and_not_stored(
    world: World, ada: Person, text: str
) -> None:
    """Empty and overlong messages are refused with what to do."""
    conversation = await world.chat.open(SCOPE, ada)
    with pytest.raises(InvalidInput, match=r"write something|send a shorter one"):
        await world.chat.say(conversation, ada.id, text)
    assert (
        await world.database.run(lambda db: db.conversations.history(conversation, limit=9)) == []
    )


@pytest.mark.parametrize("text", ["👍👍🏽🎉", "\ud83d lone", "مرحبا", "a" * 2000])
async def test_odd_messages_are_answered(world: World, ada: Person, text: str) -> None:
    """Emoji, lone surrogates, right-to-left text and the longest message get a reply."""
    conversation = await world.chat.open(SCOPE, ada)
    assert (await (await world.chat.say(conversation, ada.id, text)).finished()).state == "done"


async def test_again_writes_another_version_of_the_same_reply(world: World, ada: Person) -> None:
    """The new version has its own id, the same prompt, and the asking is a signal."""
    conversation = await world.chat.open(SCOPE, ada)
    first = await (await world.chat.say(conversation, ada.id, "Hello")).finished()
    second = await (await world.chat.again(first.id, ada.id)).finished()
    assert second.replaces == first.id
    assert second.prompt == first.prompt
    signals = await world.database.run(lambda db: db.feedback.of_reply(first.id))
    assert [signal.kind for signal in signals] == ["regenerate"]


async def test_a_full_engine_says_busy_and_the_message_is_kept(world: World, ada: Person) -> None:
    """A full queue answers at once; the message is there and can be answered later."""
    conversation = await world.chat.open(SCOPE, ada)
    long = GenerationRequest((Message("user", "Go on"),), sampling=Sampling(0.0, max_tokens=400))
    full = [world.engine.generate(long) for _ in range(8)]
    with pytest.raises(EngineBusy, match="try again in a moment"):
        await world.chat.say(conversation, ada.id, "Tell me a story")
    for stream in full:
        stream.cancel()
    await asyncio.gather(*(stream.result() for stream in full))
    later = await world.chat.answer(conversation)
    assert (await later.finished()).prompt[-1].content == "Tell me a story"


async def test_any_number_follow_one_reply(world: World, ada: Person) -> None:
    """Each sees it grow from wherever it joins, and the last thing seen is the whole text."""
    conversation = await world.chat.open(SCOPE, ada)
    writing = await world.chat.say(conversation, ada.id, "Hello")
    assert world.chat.running(writing.reply.id) is writing

    async def seen() -> list[str]:
        return [text async for text in writing.follow()]

    one, other = await asyncio.gather(seen(), seen())
    reply = await writing.finished()
    for texts in (one, other):
        assert texts == sorted(texts, key=len)
        assert all(reply.text.startswith(text) for text in texts)
    assert writing.text == reply.text
    await asyncio.sleep(0)
    assert world.chat.running(writing.reply.id) is None
    assert [text async for text in writing.follow()] == []


async def test_a_deleted_conversation_is_gone_while_it_is_written(
    world: World, ada: Person
) -> None:
    """What is being written in it is stopped, and neither memory nor database holds it."""
    conversation = await world.chat.open(SCOPE, ada)
    writing = await world.chat.say(conversation, ada.id, "Hello")
    counts = await world.chat.delete(conversation, actor="test")
    assert counts["conversations"] == 1
    assert world.chat.memory.get(writing.reply.id) is None
    talks = await world.database.run(lambda db: db.conversations.list(SCOPE, ada.id, limit=9))
    assert talks == []


async def test_a_scope_says_its_persona_or_none(world: World) -> None:
    """A new scope has the configured one, which is empty here."""
    assert await world.chat.persona("shop") == ()
    await world.database.run(lambda db: db.scopes.set_persona("shop", "Be kind", actor="test"))
    assert await world.chat.persona("shop") == (Message("system", "Be kind"),)


async def test_a_question_given_up_before_its_reply_began_is_failed(
    world: World, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left pending by who stopped asking while an adapter was being loaded."""
    begun = asyncio.Event()

    async def never(_: str) -> None:
        begun.set()
        await asyncio.Event().wait()

    conversation = await world.chat.open(SCOPE, ada)
    await world.registry.speaking(SCOPE)
    ask = Ask(SCOPE, conversation, (Message("user", "Hi"),), (ada.id,), adapter="console@v9")
    monkeypatch.setattr(world.registry, "ensure_resident", never)
    asking = asyncio.create_task(world.chat.write(ask))
    await begun.wait()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert await world.database.run(lambda db: db.replies.pending()) == []
