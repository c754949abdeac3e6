"""What people take back while it is on its way: between the question and the first word, and after.

A question is built from Discord before its reply is begun; consent, messages and people may go in
between.
"""

from __future__ import annotations

from dataclasses import replace

import discord
import pytest

from bot.discord.asking import question_of
from bot.discord.context import build
from bot.discord.places import Spot
from bot.memory import Ask
from bot.privacy import forget, opt_out
from core.errors import NotFound
from tests.bot.discord.conftest import Town


async def asked(town: Town, text: str = "NEEDLE") -> tuple[discord.Message, Ask]:
    """Let Ada, who opted in, write a message; return it with the question made from it."""
    await town.bot.places.change_server(Spot(town.guild.id, town.channel.id), "t", training=True)
    await town.opt_in(town.ada)
    said = await town.ada.send(town.channel, text)
    message = await _channel(town).fetch_message(said.id)
    ask = (await question_of(town.bot, message)).ask
    assert ask.kept
    return message, ask


def _channel(town: Town) -> discord.TextChannel:
    channel = town.bot.get_channel(town.channel.id)
    assert isinstance(channel, discord.TextChannel)
    return channel


async def written(town: Town, ask: Ask) -> dict[str, object]:
    """Write the reply and return its row; no word of the question is in the file."""
    await (await town.world.chat.write(ask)).finished()
    (row,) = await town.rows("SELECT kept, text, prompt FROM replies")
    assert b"NEEDLE" not in town.world.database.path.read_bytes()
    return row


async def test_who_opts_out_before_the_first_word_is_not_kept(town: Town) -> None:
    """Consent is looked at again in the moment in which the words would be stored."""
    _, ask = await asked(town)
    ada = await town.bot.access.person(town.ada.id)
    await opt_out(town.world.database, town.world.settings.data_dir, ada.id, actor=ada.id)
    assert (await written(town, ask))["kept"] == 0


async def test_who_is_forgotten_before_the_first_word_is_not_kept(town: Town) -> None:
    """Their conversation is gone, and in another one their words would not be kept."""
    _, ask = await asked(town)
    ada = await town.bot.access.person(town.ada.id)
    await forget(town.world.database, town.world.settings.data_dir, ada.id, actor=ada.id)
    with pytest.raises(NotFound):
        await town.world.chat.write(ask)
    bob = await town.bot.access.person(town.bob.id)
    other = await town.world.chat.open(town.scope, bob)
    assert (await written(town, replace(ask, conversation_id=other)))["kept"] == 0


async def test_a_message_deleted_before_the_first_word_is_not_kept(town: Town) -> None:
    """What was deleted while its context was read is stored nowhere, and not remembered."""
    message, ask = await asked(town)
    await message.delete()
    await town.env.settle()
    assert (await written(town, ask))["kept"] == 0
    assert len(town.world.chat.memory) == 0


async def test_a_reply_deleted_by_a_moderator_goes_from_later_prompts(town: Town) -> None:
    """A prompt holds earlier replies too: it goes with the message that showed one of them."""
    await asked(town)
    await town.ada.send(town.channel, f"{town.mention} one")
    first = town.channel.last_message
    await town.ada.send(town.channel, "two", reply_to=first)
    assert len(await town.rows("SELECT * FROM replies WHERE kept")) == 2
    await _channel(town).get_partial_message(first.id).delete()
    await town.env.settle()
    assert await town.rows("SELECT * FROM replies WHERE kept") == []


async def test_a_question_out_of_the_window_is_not_taken_from_the_reply_to_it(town: Town) -> None:
    """After /reset the context begins with a reply; what that answered stays behind the reset."""
    await asked(town)
    said = await town.ada.send(town.channel, f"{town.mention} NEEDLE")
    reply = town.channel.last_message
    await town.ada.send(town.channel, "go on", reply_to=reply)
    spot = Spot(town.guild.id, town.channel.id)
    await town.bot.places.reset(spot, said.id, "t")
    last = await _channel(town).fetch_message(town.channel.last_message.id)
    context = await build(town.bot, last, whole_channel=False)
    assert all("NEEDLE" not in one.content for one in context.messages)
    assert str(reply.id) in context.sources


async def test_a_commands_question_goes_with_a_message_it_was_made_from(town: Town) -> None:
    """“Try again” under a command's answer holds the talk around it: a deleted message ends it."""
    _, ask = await asked(town)
    questions = town.bot.desk.questions
    held = questions.hold(ask, "")
    other = questions.hold(Ask(ask.scope, "c_other", ask.prompt), "")
    await _channel(town).get_partial_message(int(ask.sources[-1])).delete()
    await town.env.settle()
    assert questions.get(held.token) is None
    assert questions.get(other.token) is not None
    questions.forget_conversations(frozenset({"c_other"}))
    assert questions.get(other.token) is None


async def test_somebody_never_met_leaves_no_trace_by_leaving(town: Town) -> None:
    """Members who come and go without a word to the bot get no row."""
    town.guild.remove_member(town.bob)
    await town.env.settle()
    assert await town.rows("SELECT * FROM people") == []
