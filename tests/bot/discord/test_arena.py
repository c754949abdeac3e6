"""Two replies side by side on Discord: what people see, what they do not, and what is stored."""

from __future__ import annotations

import discord
import pytest
import simcord
from simcord.env import Env

from bot.arena import OpenMatch
from bot.discord.cogs.arena import _embeds
from bot.discord.places import Spot
from bot.discord.wording import arena as words
from bot.world import World
from tests.bot.discord.conftest import Town, make_bot
from tests.bot.test_arena import preferences, publish, speak, spoil


async def ask_arena(
    town: Town, person: simcord.MemberActor, prompt: str = "Hello you"
) -> discord.Message:
    """Use /arena and return the message that everybody sees."""
    result = await person.slash(town.channel, "arena", prompt=prompt)
    assert result.response is not None
    assert not result.response.ephemeral
    return result.response.message


def spot(town: Town) -> Spot:
    """Return where the square is."""
    return Spot(town.guild.id, town.channel.id)


def ids_of(message: discord.Message) -> list[str]:
    """Return the custom ids of a message's buttons."""
    return [
        str(button.custom_id)
        for row in message.components
        if isinstance(row, discord.ActionRow)
        for button in row.children
    ]


async def test_two_replies_are_shown_blind(town: Town, world: World) -> None:
    """The message quotes the question and shows A and B; nothing says which version wrote which."""
    await publish(world, 1, scope=town.scope)
    shown = await ask_arena(town, town.ada, "What is **this**, @everyone?")
    assert shown.content == "> What is \\*\\*this\\*\\*, @\u200beveryone?"
    assert [embed.title for embed in shown.embeds] == ["A", "B"]
    assert all(embed.description for embed in shown.embeds)
    assert [one.rsplit(":", 1)[1] for one in ids_of(shown)] == ["first", "second", "tie"]
    told = str([embed.to_dict() for embed in shown.embeds]) + shown.content + str(ids_of(shown))
    assert "@v1" not in told
    assert "base" not in told


async def test_a_choice_is_told_to_the_one_who_made_it(town: Town, world: World) -> None:
    """Votes are acknowledged in private, may be changed, and reveal nothing."""
    name = await publish(world, 1, scope=town.scope)
    shown = await ask_arena(town, town.ada)
    (match,) = await town.rows("SELECT * FROM matches")
    new, old = ("A", "B") if match["candidate_first"] else ("B", "A")
    before = len(town.channel.history())
    result = await town.bob.click(shown, label=new)
    assert result.response is not None
    assert result.response.ephemeral
    assert result.response.content == words.chosen(new)
    assert await preferences(world) == [(name, "base")]
    await town.bob.click(shown, label=old)
    assert await preferences(world) == [("base", name)]
    result = await town.bob.click(shown, label="Tie")
    assert result.response is not None
    assert result.response.content == words.TIED
    assert await preferences(world) == []
    assert [row["choice"] for row in await town.rows("SELECT choice FROM match_votes")] == ["tie"]
    assert len(town.channel.history(viewer=town.ada)) == before


async def test_votes_work_after_a_restart(town: Town, world: World, env: Env) -> None:
    """A button of before the restart still counts."""
    await publish(world, 1, scope=town.scope)
    shown = await ask_arena(town, town.ada)
    await env.restart_bot(make_bot(world))
    await town.bob.click(shown, label="A")
    assert len(await town.rows("SELECT * FROM match_votes")) == 1


async def test_without_a_second_version_only_the_asker_is_told(town: Town) -> None:
    """Where there is nothing to compare, nobody else hears of it and no model is asked."""
    result = await town.ada.slash(town.channel, "arena", prompt="Hello")
    assert result.response is not None
    assert result.response.ephemeral
    assert result.response.content == words.ONLY_ONE_VERSION
    assert await town.rows("SELECT * FROM replies") == []


async def test_only_consented_words_are_kept(town: Town, world: World) -> None:
    """Without consent no text is stored; with it, deleting the arena's message deletes it."""
    await publish(world, 1, scope=town.scope)
    await town.bot.places.change_server(spot(town), "test", training=True)
    await ask_arena(town, town.ada, "A secret of Ada")
    rows = await town.rows("SELECT kept, text, prompt FROM replies")
    assert [(row["kept"], row["text"]) for row in rows] == [(0, ""), (0, "")]
    await town.opt_in(town.bob)
    shown = await ask_arena(town, town.bob, "A word of Bob")
    kept = await town.rows("SELECT id FROM replies WHERE kept")
    sources = await town.rows("SELECT DISTINCT message_id FROM reply_sources")
    assert len(kept) == 2
    assert [row["message_id"] for row in sources] == [str(shown.id)]
    await world.database.run(lambda db: db.replies.forget_message(str(shown.id)))
    result = await town.bob.click(shown, label="A")
    assert result.response is not None
    assert result.response.content == words.MATCH_GONE
    assert await town.rows("SELECT * FROM replies WHERE kept") == []


async def test_one_reply_in_so_many_is_two(town: Town, world: World) -> None:
    """Where an admin wants it, a message is answered with two replies; with one version by one."""
    await town.bot.places.change_server(spot(town), "test", arena_one_in=1)
    await town.ada.send(town.channel, f"{town.mention} hello")
    assert town.channel.last_message is not None
    assert town.channel.last_message.embeds == []
    await publish(world, 1, scope=town.scope)
    asked = await town.ada.send(town.channel, f"{town.mention} hello again")
    shown = town.channel.last_message
    assert shown is not None
    assert shown.content == words.OFFERED
    assert [embed.title for embed in shown.embeds] == ["A", "B"]
    assert shown.reference is not None
    assert shown.reference.message_id == asked.id
    await town.bob.click(shown, label="B")
    assert len(await preferences(world)) == 1


async def test_a_failed_offer_falls_back_to_one_reply(town: Town, world: World) -> None:
    """If one side cannot answer, the placeholder goes and the chat answers as always."""
    await town.bot.places.change_server(spot(town), "test", arena_one_in=1)
    await speak(world, await publish(world, 1, scope=town.scope), town.scope)
    spoiled = await publish(world, 2, scope=town.scope)
    spoil(world, spoiled)
    await town.ada.send(town.channel, f"{town.mention} hello")
    texts = [message.content for message in town.channel.history()]
    assert words.WRITING not in texts
    assert len(texts) == 2
    assert await town.rows("SELECT * FROM matches") == []


async def test_servers_do_not_meet(town: Town, env: Env, world: World) -> None:
    """One server's candidate is nobody's opponent on another server."""
    await publish(world, 1, scope=town.scope)
    other = env.create_guild("Elsewhere")
    channel = other.create_text_channel("hall")
    stranger = other.add_member(env.create_user("cleo"))
    result = await stranger.slash(channel, "arena", prompt="Hello")
    assert result.response is not None
    assert result.response.content == words.ONLY_ONE_VERSION


@pytest.mark.parametrize("length", [10, 6000])
async def test_long_replies_fit(town: Town, length: int) -> None:
    """However long both replies are, the message is one that Discord takes."""
    embeds = _embeds(OpenMatch("m_0", "x " * length, "🦊" * length))
    assert sum(len(str(embed.description).encode("utf-16-le")) // 2 for embed in embeds) < 5900
    assert (words.CUT_HERE in str(embeds[0].description)) == (length > 1000)
