"""What is hidden, blocked, limited or gone: nobody is answered wrongly, or left without a word."""

from __future__ import annotations

import discord
from simcord.env import Env

from bot.discord.places import Spot
from bot.discord.wording import chat as words
from bot.discord.wording import privacy as privacy_words
from bot.world import World
from tests.bot.discord.conftest import Town, make_bot
from tests.bot.discord.test_chatting import last_prompt, shown_id


def spot(town: Town) -> Spot:
    """The spot of the square."""
    return Spot(town.guild.id, town.channel.id)


async def test_a_channel_takes_so_many_commands_a_minute(town: Town) -> None:
    """The limit of a channel holds for /chat as for messages."""
    town.bot.channel_limit._limit = 1
    await town.ada.slash(town.channel, "chat", text="one")
    result = await town.bob.slash(town.channel, "chat", text="two")
    assert result.ephemeral
    assert result.response is not None
    assert result.response.content == words.channel_full(60)


async def test_a_blocked_person_changes_nothing_others_see(town: Town) -> None:
    """Neither ◀ nor /reset works for them."""
    await town.ada.send(town.channel, f"{town.mention} Hello")
    await town.ada.click(town.channel.last_message, custom_id=await shown_id(town, "again"))
    shown = town.channel.last_message.content
    await town.bot.places.change_server(spot(town), "t", blocked=(town.bob.id,))
    older = await shown_id(town, "older")
    pressed = await town.bob.click(town.channel.last_message, custom_id=older)
    assert [one.content for one in pressed.followups] == [words.BLOCKED]
    assert town.channel.last_message.content == shown
    result = await town.bob.slash(town.channel, "reset")
    assert result.response is not None
    assert result.response.content == words.BLOCKED
    assert await town.bot.places.reset_after(spot(town)) == 0


async def test_where_everything_is_answered_nothing_hidden_is(
    env: Env, town: Town, world: World
) -> None:
    """Without the intent for it, no message gets an answer only to say that it is hidden."""
    await town.bot.places.change_channel(spot(town), "t", listen="all")
    await env.restart_bot(make_bot(world, message_content=False))
    await town.ada.send(town.channel, "words")
    assert len(town.channel.history()) == 1
    await town.ada.send(town.channel, f"{town.mention} words")
    assert len(town.channel.history()) == 3


async def test_system_messages_are_no_part_of_the_talk(town: Town) -> None:
    """That somebody opened a thread is told by Discord, not said by a person."""
    await town.bot.places.change_channel(spot(town), "t", listen="all")
    await town.ada.send(town.channel, "first")
    channel = town.bot.get_channel(town.channel.id)
    assert isinstance(channel, discord.TextChannel)
    await channel.edit(name="market")
    await town.bob.send(town.channel, "second")
    said = [one.content for one in last_prompt(town) if one.role == "user"]
    assert said == ["ada: first", "bob: second"]


async def test_try_again_under_the_answer_to_a_command_after_a_restart(town: Town) -> None:
    """The question of a command was in memory only; the bot does not answer itself instead."""
    result = await town.ada.slash(town.channel, "chat", text="Hello")
    assert result.response is not None
    shown = result.response.message
    from bot.discord.controls import retry_view

    channel = town.bot.get_channel(town.channel.id)
    assert isinstance(channel, discord.TextChannel)
    await channel.get_partial_message(shown.id).edit(view=retry_view(f"m{shown.id}"))
    pressed = await town.ada.click(town.channel.last_message, custom_id=f"tt:retry:m{shown.id}")
    assert [one.content for one in pressed.followups] == [words.QUESTION_GONE]
    assert len(await town.rows("SELECT * FROM replies")) == 1
    assert await town.rows("SELECT * FROM people WHERE platform_id <> ?", str(town.ada.id)) == []


def test_what_years_of_training_learnt_still_fits_into_a_message() -> None:
    """The newest versions are named, the others counted."""
    adapters = [f"discord-1456074443980800000@v{number}" for number in range(1, 300)]
    assert len(privacy_words.learnt(adapters)) < 700
    assert privacy_words.learnt(adapters).endswith("v299 and 287 before.")
    assert len(privacy_words.forgotten({}, adapters)) < 1200
