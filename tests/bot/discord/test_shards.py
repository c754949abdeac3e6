"""Several shards in one process: each has its servers, and what happens to one is no other's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr

from bot.cli.up import _discord_status
from bot.discord import shards
from bot.discord.bot import ThumbtuneBot, quiet
from bot.discord.serve import discord_face
from bot.world import World
from core.errors import ConfigError, ThumbtuneError
from core.sections import DiscordSettings
from core.settings import Settings
from tests.bot.discord.scripted import ScriptedEngine, scripted_world
from tests.discord_double import TOKEN, Double
from tests.discord_double.drafts import leaves
from tests.discord_double.records import Channel, Guild, Message, User


@dataclass
class Town:
    """A server on one shard, with a channel."""

    guild: Guild
    square: Channel


@dataclass
class Pair:
    """Two servers on two shards, and Ada, who is on both."""

    double: Double
    ada: User
    towns: tuple[Town, Town]

    async def ask(self, town: Town, text: str = "Tell me") -> Message:
        """Let Ada ask the bot on a server."""
        return await self.double.say(self.ada, town.square, text, mention_bot=True)

    def answers(self, channel: Channel) -> list[Message]:
        """Return the bot's messages in a channel that carry the votes: those that are whole."""
        return [one for one in self.double.messages(channel) if button(one, "up")]


@pytest_asyncio.fixture
async def pair(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    """A Discord that wants two shards and lets them identify close upon one another."""
    monkeypatch.setattr(shards, "IDENTIFY_GAP_S", 0.05)
    async with Double() as double:
        double.gateway.recommended_shards = 2
        ada = await double.user("ada")
        towns = []
        for shard in range(2):
            guild = await double.guild(f"Town {shard}", members=[ada], shard=(shard, 2))
            towns.append(Town(guild, await double.text_channel(guild, "square")))
        yield Pair(double, ada, (towns[0], towns[1]))


@dataclass
class Running:
    """A bot that runs in this process on a data directory of its own."""

    bot: ThumbtuneBot
    world: World

    async def rows(self, statement: str) -> list[dict[str, Any]]:
        """Read rows straight from the database."""
        return await self.world.database.run(lambda db: db._connection.all(statement))


async def start(
    stack: AsyncExitStack, double: Double, home: Path, *, wait_for: int = 0, **discord: Any
) -> Running:
    """Run a bot until the stack ends; wait until so many of its shards (0: all) are ready."""
    settings = Settings(
        data_dir=home,
        discord=DiscordSettings(api_url=double.api_url, gateway_url=double.gateway_url, **discord),
        discord_token=SecretStr(TOKEN),
    )
    world = await stack.enter_async_context(
        scripted_world(settings, ScriptedEngine(words=12, pace_s=0.005))
    )
    bot = await stack.enter_async_context(discord_face(world, quiet))
    assert bot is not None
    await until(lambda: len(bot.shards_up.ready) == (wait_for or len(bot.share.ids)))
    return Running(bot, world)


@pytest_asyncio.fixture
async def running(pair: Pair, tmp_path: Path) -> AsyncIterator[Running]:
    """One process that runs both shards."""
    async with AsyncExitStack() as stack:
        yield await start(stack, pair.double, tmp_path)


async def test_every_server_and_direct_messages_are_answered_once(
    pair: Pair, running: Running
) -> None:
    """Each shard identifies as what it is, and hears of its own servers alone."""
    for town in pair.towns:
        await pair.ask(town)
    direct = (await pair.double.dm(pair.ada, "Hello")).channel
    for channel in (pair.towns[0].square, pair.towns[1].square, direct):
        await until(lambda channel=channel: len(pair.answers(channel)) == 1)
    assert [one["shard"] for one in pair.double.gateway.identifies] == [[0, 2], [1, 2]]
    assert len(await running.rows("SELECT * FROM replies")) == 3
    assert {guild.name: guild.shard_id for guild in running.bot.guilds} == {
        "Town 0": 0,
        "Town 1": 1,
    }


async def test_the_status_says_how_many_shards_are_there(pair: Pair, running: Running) -> None:
    """All servers of the process, over all its shards."""
    assert _discord_status(running.bot) == (
        "Discord: connected as thumbtune to 2 servers on 2 of 2 shards"
    )


async def test_a_lost_shard_leaves_the_other_alone_and_catches_up(
    pair: Pair, running: Running
) -> None:
    """One socket is cut: the other shard answers meanwhile, and the question in the gap is answered
    once.
    """
    pair.double.drop(shard=1)
    for town in pair.towns:
        await pair.ask(town)
    await until(lambda: len(pair.answers(pair.towns[0].square)) == 1)
    await until(lambda: len(pair.answers(pair.towns[1].square)) == 1)
    assert len(pair.double.gateway.resumes) == 1
    assert len(pair.double.gateway.identifies) == 2
    assert running.bot.shards_up.ready == {0, 1}


async def test_a_lost_session_is_made_up_for_on_that_shard(pair: Pair, running: Running) -> None:
    """A thumb given and a server left while one shard had no session; the other shard's stay."""
    for town in pair.towns:
        await pair.ask(town)
        await until(lambda town=town: len(pair.answers(town.square)) == 1)
    left = await pair.double.guild("Left", members=[pair.ada], shard=(1, 2))
    square = await pair.double.text_channel(left, "square")
    await pair.ask(Town(left, square))
    await until(lambda: len(pair.answers(square)) == 1)
    pair.double.gateway.invalidate(shard=1)
    await pair.double.react(pair.ada, pair.answers(pair.towns[1].square)[0], "👍")
    await pair.double.remove_bot_from(left)
    await until_rows(running, "SELECT kind FROM feedback", [{"kind": "up"}])
    towns = sorted(f"discord-{town.guild.id}" for town in pair.towns)
    scopes = "SELECT DISTINCT scope FROM conversations ORDER BY scope"
    await until_rows(running, scopes, [{"scope": name} for name in towns])
    assert {guild.name for guild in running.bot.guilds} == {"Town 0", "Town 1"}


async def test_a_bot_may_leave_while_its_shards_come_in(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It serves from the first shard on, and leaving waits for none of the others."""
    monkeypatch.setattr(shards, "IDENTIFY_GAP_S", 600.0)
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        running = await start(stack, pair.double, tmp_path, wait_for=1)
        await pair.ask(pair.towns[0])
        await until(lambda: len(pair.answers(pair.towns[0].square)) == 1)
        assert _discord_status(running.bot).endswith("to 1 server on 1 of 2 shards")
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("discord")]


async def test_a_start_that_discord_would_punish_is_not_made(pair: Pair, tmp_path: Path) -> None:
    """Two shards with one session left: a plain sentence, and nobody identifies."""
    pair.double.gateway.starts_left = 1
    with pytest.raises(ThumbtuneError, match=r"begin 1 more sessions within the next 4\.0 h"):
        async with AsyncExitStack() as stack:
            await start(stack, pair.double, tmp_path)
    assert pair.double.gateway.identifies == []


async def test_too_few_shards_are_named_with_the_way_out(pair: Pair, tmp_path: Path) -> None:
    """A bot that has outgrown the number in its settings: a fault of the settings."""
    pair.double.gateway.shard_servers = 1
    with pytest.raises(ConfigError, match=r"discord\.shards: this bot is on more servers"):
        async with AsyncExitStack() as stack:
            await start(stack, pair.double, tmp_path, shards=1)


async def test_an_api_without_shards_is_one_shard(pair: Pair, tmp_path: Path) -> None:
    """An API that knows no /gateway/bot is used as ever."""
    pair.double.gateway.without_shards = True
    async with AsyncExitStack() as stack:
        running = await start(stack, pair.double, tmp_path)
        assert running.bot.share.ids == (0,)
        assert len(running.bot.guilds) == 2


async def test_two_bots_on_one_data_directory_are_refused(
    pair: Pair, running: Running, tmp_path: Path
) -> None:
    """The second would answer everything twice; the first goes on."""
    with pytest.raises(ConfigError, match="another process serves Discord"):
        async with AsyncExitStack() as stack:
            await start(stack, pair.double, tmp_path)
    await pair.ask(pair.towns[0])
    await until(lambda: len(pair.answers(pair.towns[0].square)) == 1)


def button(message: Message, what: str) -> str | None:
    """Return the custom id of a button, if the message has it."""
    ids = [str(leaf.get("custom_id", "")) for leaf in leaves(message.components)]
    return next((one for one in ids if one.startswith(f"tt:{what}:")), None)


async def until(true: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until something holds; fail after some time."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.02)


async def until_rows(running: Running, statement: str, expected: list[dict[str, Any]]) -> None:
    """Wait until the database holds these rows."""
    async with asyncio.timeout(60):
        while await running.rows(statement) != expected:
            await asyncio.sleep(0.05)
