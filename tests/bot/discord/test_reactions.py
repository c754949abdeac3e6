"""Plain reactions as votes: as they come, and found again after a time away."""

from __future__ import annotations

from collections.abc import Callable

import discord
import pytest
from discord.ext import commands
from simcord.env import Env

from bot.discord.cogs.reactions import EARLY_S, kind_of
from bot.discord.places import Spot
from tests.bot.discord.conftest import Town, make_bot


async def answered(town: Town) -> discord.Message:
    """Have the bot answer Ada; return the message."""
    await town.ada.send(town.channel, f"{town.mention} Hello there")
    message = town.channel.last_message
    assert message is not None
    return message


async def votes(town: Town) -> list[tuple[object, object]]:
    """Return who voted what."""
    rows = await town.rows(
        """SELECT p.platform_id, f.kind FROM feedback f JOIN people p ON p.id = f.person_id
        ORDER BY p.platform_id"""
    )
    return [(row["platform_id"], row["kind"]) for row in rows]


async def while_away(town: Town, act: Callable[[], None]) -> None:
    """Let something happen on Discord that the bot is not told, then connect it again."""
    town.env.backend.subscribers.clear()
    act()
    await town.env.restart_bot(make_bot(town.world))


def thumb(town: Town, message: discord.Message, emoji: str, user_id: int, *, up: bool) -> None:
    """Put a reaction on a message, or take it off, without an actor."""
    town.env.backend.set_reaction(message.channel.id, message.id, emoji, user_id, up)


def message_of(town: Town, message: discord.Message) -> discord.PartialMessage:
    """Return the message as the bot itself holds it."""
    channel = town.bot.get_channel(town.channel.id)
    assert isinstance(channel, discord.TextChannel)
    return channel.get_partial_message(message.id)


@pytest.mark.parametrize(
    ("emoji", "kind"),
    [("👍", "up"), ("👍🏽", "up"), ("👎", "down"), ("👎🏿", "down"), ("👍️", "up"), ("🎉", None)],
)
def test_thumbs_count_in_every_skin_tone(emoji: str, kind: str | None) -> None:
    """A thumb is a thumb; every other emoji is none."""
    assert kind_of(discord.PartialEmoji(name=emoji)) == kind
    assert kind_of(emoji) == kind


def test_a_servers_own_emoji_is_no_vote() -> None:
    """Whatever its name is."""
    assert kind_of(discord.PartialEmoji(name="👍", id=5)) is None


async def test_a_reaction_votes_and_its_removal_withdraws(town: Town) -> None:
    """👍 on a reply is stored, taken back it is gone, and nobody is written to."""
    message = await answered(town)
    before = len(town.channel.history())
    await town.bob.react(message, "👍🏽")
    assert await votes(town) == [(str(town.bob.id), "up")]
    await town.bob.unreact(message, "👍🏽")
    assert await votes(town) == []
    assert len(town.channel.history()) == before


async def test_the_last_of_two_reactions_wins_and_the_other_comes_back(town: Town) -> None:
    """👍 and then 👎 is 👎; when the 👎 goes, the 👍 that is still there counts."""
    message = await answered(town)
    await town.bob.react(message, "👍")
    await town.bob.react(message, "👎")
    assert await votes(town) == [(str(town.bob.id), "down")]
    await town.bob.unreact(message, "👎")
    assert await votes(town) == [(str(town.bob.id), "up")]


async def test_only_thumbs_of_people_on_replies_count(town: Town) -> None:
    """Other emoji, other messages, bots and blocked people leave no row, not even a person's."""
    robot = town.guild.add_member(town.env.create_user("robot", bot=True))
    spot = Spot(town.guild.id, town.channel.id)
    await town.bot.places.change_server(spot, "system", blocked=(town.bob.id,))
    message = await answered(town)
    own = await town.ada.send(town.channel, "just talking")
    await town.ada.react(message, "🎉")
    await town.admin.react(own, "👍")
    await robot.react(message, "👎")
    await town.bob.react(message, "👎")
    await message_of(town, message).add_reaction("👍")
    await town.env.settle()
    assert await votes(town) == []
    people = await town.rows("SELECT platform_id FROM people")
    assert [row["platform_id"] for row in people] == [str(town.ada.id)]


async def test_cleared_reactions_are_withdrawn_votes(town: Town) -> None:
    """A moderator who clears one emoji, or all, takes those votes back."""
    message = await answered(town)
    await town.ada.react(message, "👍")
    await town.bob.react(message, "👎")
    town.env.backend.clear_reaction(town.channel.id, message.id, "👍")
    await town.env.settle()
    assert await votes(town) == [(str(town.bob.id), "down")]
    town.env.backend.clear_reactions(town.channel.id, message.id)
    await town.env.settle()
    assert await votes(town) == []


async def test_a_direct_message_is_voted_on_by_reaction_too(env: Env, town: Town) -> None:
    """In a direct channel there is no member, and the person's thumb counts."""
    user = env.create_user("dora")
    await user.send_dm("hello")
    message = user.dm_channel.last_message
    assert message is not None
    await user.set_reaction(message, "👎", reacted=True)
    assert await votes(town) == [(str(user.id), "down")]


async def test_a_restart_changes_nothing(town: Town) -> None:
    """Votes known before are found as they were, and reactions go on being taken."""
    message = await answered(town)
    await town.ada.react(message, "👍")
    await town.env.restart_bot(make_bot(town.world))
    assert await votes(town) == [(str(town.ada.id), "up")]
    await town.ada.unreact(message, "👍")
    assert await votes(town) == []


async def test_votes_cast_while_away_are_found(town: Town) -> None:
    """One came, one left, one changed, and one took another's place: all are as on Discord."""
    first, second, third = [await answered(town) for _ in range(3)]
    await town.ada.react(first, "👍")
    await town.bob.react(second, "👍")

    def meanwhile() -> None:
        thumb(town, first, "👍", town.ada.id, up=False)
        thumb(town, first, "👍", town.bob.id, up=True)
        thumb(town, second, "👍", town.bob.id, up=False)
        thumb(town, second, "👎🏻", town.bob.id, up=True)
        thumb(town, third, "👍", town.ada.id, up=True)

    await while_away(town, meanwhile)
    rows = await town.rows(
        """SELECT m.message_id, p.platform_id, f.kind FROM feedback f
        JOIN people p ON p.id = f.person_id JOIN reply_messages m ON m.reply_id = f.reply_id
        ORDER BY m.message_id"""
    )
    assert [tuple(row.values()) for row in rows] == [
        (str(first.id), str(town.bob.id), "up"),
        (str(second.id), str(town.bob.id), "down"),
        (str(third.id), str(town.ada.id), "up"),
    ]


async def test_votes_in_direct_messages_are_found_too(env: Env, town: Town) -> None:
    """A direct channel is read again after a restart like any other."""
    user = env.create_user("dora")
    await user.send_dm("hello")
    message = user.dm_channel.last_message
    assert message is not None
    await while_away(town, lambda: thumb(town, message, "👍", user.id, up=True))
    assert await votes(town) == [(str(user.id), "up")]


async def test_a_bots_thumb_while_away_does_not_count(town: Town) -> None:
    """Bots and the bot itself are left out of what is found."""
    robot = town.env.create_user("robot", bot=True)
    town.guild.add_member(robot)
    message = await answered(town)
    await while_away(town, lambda: thumb(town, message, "👍", robot.id, up=True))
    assert await votes(town) == []


async def test_a_message_deleted_while_away_is_reported(town: Town) -> None:
    """What is gone from Discord is handed on, so that it is deleted here too."""
    gone, stays = await answered(town), await answered(town)
    told: list[int] = []

    class Listening(commands.Cog):
        @commands.Cog.listener()
        async def on_thumbtune_message_gone(self, message_id: int) -> None:
            told.append(message_id)

    town.env.backend.subscribers.clear()
    town.env.backend.delete_message(town.channel.id, gone.id)
    bot = make_bot(town.world)
    await bot.add_cog(Listening())
    await town.env.restart_bot(bot)
    assert told == [gone.id]
    assert stays.id not in told


async def test_a_channel_that_cannot_be_read_is_skipped(
    town: Town, caplog: pytest.LogCaptureFixture
) -> None:
    """Lost rights are a line in the log; the votes stay and nothing counts as deleted."""
    message = await answered(town)
    await town.ada.react(message, "👍")
    town.env.inject_error("GET", "/channels/*/messages", status=403, code=50001)
    await town.env.restart_bot(make_bot(town.world))
    assert "cannot be read, skipped" in caplog.text
    assert await votes(town) == [(str(town.ada.id), "up")]


async def test_a_thumb_before_the_replys_end_counts_once_it_is_whole(town: Town) -> None:
    """Nobody has to react again because the bot was still writing."""
    message = await answered(town)
    await town.rows("UPDATE replies SET state = 'pending'")
    await town.bob.react(message, "👍")
    assert await votes(town) == []
    await town.rows("UPDATE replies SET state = 'done'")
    await town.env.advance_time(EARLY_S + 1)
    assert await votes(town) == [(str(town.bob.id), "up")]


async def test_a_burst_of_changes_ends_as_the_last_one(town: Town) -> None:
    """Events that come faster than they are stored are taken in their order."""
    message = await answered(town)
    for _ in range(20):
        thumb(town, message, "👍", town.bob.id, up=True)
        thumb(town, message, "👎", town.bob.id, up=True)
        thumb(town, message, "👍", town.bob.id, up=False)
        thumb(town, message, "👎", town.bob.id, up=False)
    thumb(town, message, "👍", town.bob.id, up=True)
    await town.env.settle()
    assert await votes(town) == [(str(town.bob.id), "up")]
