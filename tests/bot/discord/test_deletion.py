"""What goes when Discord's own goes: messages, channels, threads, members, servers."""

from __future__ import annotations

import discord
import pytest
from simcord.env import Env

from bot.discord.cogs.deletion import DeletionCog
from bot.discord.places import Spot
from bot.world import World
from tests.bot.discord.conftest import Town, make_bot

TABLES = ("replies", "reply_messages", "reply_sources", "feedback")


def square(town: Town) -> Spot:
    """The spot of the square."""
    return Spot(town.guild.id, town.channel.id)


async def kept_reply(town: Town, text: str = "NEEDLE") -> tuple[discord.Message, discord.Message]:
    """Have a stored reply to Ada; return her message and the bot's."""
    await town.bot.places.change_server(square(town), "test", training=True)
    await town.opt_in(town.ada)
    asked = await town.ada.send(town.channel, f"{town.mention} {text}")
    answer = town.channel.last_message
    assert answer is not None
    assert (await town.rows("SELECT kept FROM replies ORDER BY at"))[-1] == {"kept": 1}
    return asked, answer


async def sizes(town: Town) -> list[object]:
    """Return how many rows each table with talk has."""
    return [
        (await town.rows(f"SELECT count(*) AS n FROM {table}"))[0]["n"]  # noqa: S608 # a constant
        for table in TABLES
    ]


def deletion(town: Town) -> DeletionCog:
    """The feature under test."""
    cog = town.bot.get_cog("DeletionCog")
    assert isinstance(cog, DeletionCog)
    return cog


def feed(town: Town, event: str, **data: object) -> None:
    """Let the gateway tell the bot something."""
    town.env.backend.emit(event, data)


async def test_a_deleted_question_takes_the_reply_made_from_it(town: Town) -> None:
    """The stored row, what shows it and its copy in memory go."""
    asked, _ = await kept_reply(town)
    await town.ada.delete(asked)
    assert await sizes(town) == [0, 0, 0, 0]
    assert len(town.world.chat.memory) == 0
    assert b"NEEDLE" not in town.world.database.path.read_bytes()


async def test_a_deleted_reply_takes_its_votes_along(town: Town) -> None:
    """A moderator who deletes the bot's message deletes what was stored of it."""
    _, answer = await kept_reply(town)
    await town.bob.react(answer, "👍")
    assert (await sizes(town))[3] == 1
    await _own(town, answer).delete()
    await town.env.settle()
    assert await sizes(town) == [0, 0, 0, 0]
    assert len(town.world.chat.memory) == 0


def _own(town: Town, message: discord.Message) -> discord.PartialMessage:
    channel = town.bot.get_channel(town.channel.id)
    assert isinstance(channel, discord.TextChannel)
    return channel.get_partial_message(message.id)


async def test_many_messages_deleted_at_once_are_forgotten_together(town: Town) -> None:
    """A purge takes every reply that was made from any of them; the rest stays."""
    first, _ = await kept_reply(town, "first")
    second, _ = await kept_reply(town, "second")
    await kept_reply(town, "third")
    channel = town.bot.get_channel(town.channel.id)
    assert isinstance(channel, discord.TextChannel)
    await channel.delete_messages([first, second])
    await town.env.settle()
    rows = await town.rows("SELECT prompt FROM replies")
    assert len(rows) == 1
    assert "third" in str(rows[0]["prompt"])


async def test_a_message_found_missing_counts_as_deleted(town: Town) -> None:
    """Another feature that meets an unknown message says so, and the row goes."""
    _, answer = await kept_reply(town)
    await deletion(town).on_thumbtune_message_gone(answer.id)
    assert await sizes(town) == [0, 0, 0, 0]


async def test_an_edited_question_changes_nothing(town: Town) -> None:
    """The reply answered the old text, and the votes judged that answer."""
    asked, _ = await kept_reply(town)
    await town.ada.edit(asked, "something else")
    (row,) = await town.rows("SELECT prompt FROM replies")
    assert "NEEDLE" in str(row["prompt"])


async def test_a_page_that_the_bot_takes_away_itself_deletes_nothing(town: Town) -> None:
    """A shorter version needs fewer messages: the page goes, the reply stays."""
    _, answer = await kept_reply(town)
    (row,) = await town.rows("SELECT id FROM replies")
    page = await town.bot.get_channel(town.channel.id).send("page two")  # type: ignore[union-attr]
    both, one = [str(answer.id), str(page.id)], [str(answer.id)]
    reply_id, channel_id = str(row["id"]), str(town.channel.id)
    await town.world.database.run(lambda db: db.replies.show(reply_id, channel_id, both))
    await page.delete()
    await town.world.database.run(lambda db: db.replies.show(reply_id, channel_id, one))
    await town.env.settle()
    await town.env.advance_time(10)
    assert (await sizes(town))[:2] == [1, 1]


async def test_a_page_that_somebody_else_deletes_takes_the_reply(town: Town) -> None:
    """A later page stands for the whole reply."""
    _, answer = await kept_reply(town)
    (row,) = await town.rows("SELECT id FROM replies")
    page = await town.bot.get_channel(town.channel.id).send("page two")  # type: ignore[union-attr]
    both = [str(answer.id), str(page.id)]
    reply_id, channel_id = str(row["id"]), str(town.channel.id)
    await town.world.database.run(lambda db: db.replies.show(reply_id, channel_id, both))
    await page.delete()
    await town.env.settle()
    await town.env.advance_time(10)
    assert (await sizes(town))[:2] == [0, 0]


async def test_a_deleted_channel_takes_its_talk_and_settings(town: Town) -> None:
    """Another channel's talk stays."""
    await kept_reply(town)
    await town.bot.places.change_channel(square(town), "test", persona="NEEDLE")
    other = town.guild.create_text_channel("market")
    await town.ada.send(other, f"{town.mention} elsewhere")
    await town.bot.get_channel(town.channel.id).delete()  # type: ignore[union-attr]
    await town.env.settle()
    (row,) = await town.rows("SELECT prompt FROM replies")
    assert "elsewhere" in str(row["prompt"])
    assert (await town.bot.places.channel(square(town))).persona is None
    assert len(town.world.chat.memory) == 1


async def test_a_deleted_thread_takes_its_talk(town: Town) -> None:
    """What was said in the channel around it stays."""
    _, answer = await kept_reply(town)
    thread = await _own(town, answer).create_thread(name="more")
    handle = next(one for one in town.channel.threads if one.id == thread.id)
    await town.ada.send(handle, f"{town.mention} in the thread")
    assert (await sizes(town))[0] == 2
    await thread.delete()
    await town.env.settle()
    (row,) = await town.rows("SELECT prompt FROM replies")
    assert "in the thread" not in str(row["prompt"])


async def test_a_member_who_leaves_takes_their_words_along(town: Town) -> None:
    """The text of that server goes, the votes stay."""
    _, answer = await kept_reply(town)
    await town.bob.react(answer, "👍")
    town.guild.remove_member(town.ada)
    await town.env.settle()
    assert await town.rows("SELECT kept, text, prompt FROM replies") == [
        {"kept": 0, "text": "", "prompt": "[]"}
    ]
    assert (await sizes(town))[3] == 1
    assert len(town.world.chat.memory) == 0


async def test_members_who_left_unnoticed_are_found(env: Env, town: Town, world: World) -> None:
    """Without the members intent, Discord is asked about everybody whose text is kept."""
    await kept_reply(town)
    await env.restart_bot(make_bot(world, members=False))
    cog = deletion(town)
    await cog._look_on(_guild(town))
    assert await town.rows("SELECT kept FROM replies") == [{"kept": 1}]
    town.guild.remove_member(town.ada)
    await env.settle()
    assert await town.rows("SELECT kept FROM replies") == [{"kept": 1}]
    await cog._look_on(_guild(town))
    assert await town.rows("SELECT kept FROM replies") == [{"kept": 0}]


def _guild(town: Town) -> discord.Guild:
    guild = town.bot.get_guild(town.guild.id)
    assert guild is not None
    return guild


async def test_a_server_that_removes_the_bot_is_forgotten(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Talk, settings and memory go, and the operator is told; another server's stay."""
    said: list[str] = []
    monkeypatch.setattr(town.bot, "say", said.append)
    await kept_reply(town)
    feed(town, "GUILD_DELETE", id=str(town.guild.id))
    await town.env.settle()
    assert await sizes(town) == [0, 0, 0, 0]
    assert await town.rows("SELECT * FROM places") == []
    assert len(town.world.chat.memory) == 0
    assert said == [f"Discord: {town.scope} is left; all that was kept of that server is removed"]


async def test_an_outage_forgets_nothing(town: Town) -> None:
    """A server that is unavailable for a while is still joined."""
    await kept_reply(town)
    feed(town, "GUILD_DELETE", id=str(town.guild.id), unavailable=True)
    await town.env.settle()
    assert (await sizes(town))[0] == 1


async def test_servers_left_while_away_are_forgotten_at_the_start(
    env: Env, town: Town, world: World
) -> None:
    """What READY no longer names is removed, by settings or talk; direct messages stay."""
    await kept_reply(town)
    gone = Spot(77, 78)
    await town.bot.places.change_server(gone, "test", persona="NEEDLE")
    person = await town.bot.access.person(town.ada.id)
    await world.chat.open("discord-77", person, "discord/77/78/79")
    await world.chat.open("discord-dm", person, "discord/dm/5")
    await env.restart_bot(make_bot(world))
    keys = [row["platform_key"] for row in await town.rows("SELECT * FROM conversations")]
    assert sorted(str(key).split("/")[1] for key in keys) == sorted([str(town.guild.id), "dm"])
    assert [row["key"] for row in await town.rows("SELECT key FROM places")] == [
        square(town).server_key
    ]
