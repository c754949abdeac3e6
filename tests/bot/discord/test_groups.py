"""Several bot processes with one token: each serves its servers from its own database, and no
other's.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from bot.cli.up import _discord_status
from bot.discord.wording import chat, privacy
from core.errors import ConfigError
from storage.database import Database
from tests.bot.discord.test_shards import Pair, pair, start, until
from tests.discord_double.records import Channel

__all__ = ["pair"]


def scopes_in(home: Path) -> list[str]:
    """Return the scopes with a conversation in a data directory."""
    with Database(home / "thumbtune.db") as db:
        rows = db._connection.all("SELECT DISTINCT scope FROM conversations ORDER BY scope")
    return [row["scope"] for row in rows]


def bot_messages(pair: Pair, channel: Channel) -> int:
    """Count what the bot has said in a channel."""
    found = pair.double.messages(channel)
    return sum(one.author is pair.double.world.bot for one in found)


@asynccontextmanager
async def child(
    pair: Pair, home: Path, group: int, *, words: int = 12
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a group in a process of its own, which is ready; it is gone afterwards."""
    double = pair.double
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.bot.discord.bot_child", str(home), double.api_url, double.gateway_url),
        *(str(words), str(group), "2"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        await process.stdout.readline()
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_two_processes_serve_their_own_servers_alone(pair: Pair, tmp_path: Path) -> None:
    """Each answers on its servers once and stores them in its database; direct messages are the
    first's; a kill of one in mid-reply is not felt by the other, and its restart mends it.
    """
    homes = tmp_path / "zero", tmp_path / "one"
    squares = [town.square for town in pair.towns]
    async with child(pair, homes[0], 0) as first:
        async with child(pair, homes[1], 1, words=10_000):
            direct = (await pair.double.dm(pair.ada, "Hello")).channel
            for town in pair.towns:
                await pair.ask(town)
            await until(lambda: len(pair.answers(squares[0])) == 1)
            await until(lambda: len(pair.answers(direct)) == 1)
            await until(lambda: bot_messages(pair, squares[1]) == 1)
        await pair.ask(pair.towns[0])
        await until(lambda: len(pair.answers(squares[0])) == 2)
        sessions = {one.shard: one.id for one in pair.double.gateway.sessions.values()}
        async with child(pair, homes[1], 1):
            await pair.ask(pair.towns[1])
            await until(lambda: len(pair.answers(squares[1])) == 1)
            await until(lambda: chat.RESTARTED in pair.double.messages(squares[1])[1].content)
        assert first.returncode is None
        assert pair.double.gateway.sessions[sessions[0, 2]].line is not None
    assert [bot_messages(pair, one) for one in (*squares, direct)] == [2, 2, 1]
    assert scopes_in(homes[0]) == sorted([f"discord-{pair.towns[0].guild.id}", "discord-dm"])
    assert scopes_in(homes[1]) == [f"discord-{pair.towns[1].guild.id}"]


async def test_the_commands_are_told_to_discord_by_one_group(pair: Pair, tmp_path: Path) -> None:
    """They are the application's; the other group handles its servers' all the same."""
    async with AsyncExitStack() as stack:
        second = await start(stack, pair.double, tmp_path / "one", group=1, groups=2)
        assert [one for one in pair.double.requests if one.method == "PUT"] == []
        assert _discord_status(second.bot).endswith("to 1 server on 1 of 1 shards of group 1 of 2")
        await start(stack, pair.double, tmp_path / "zero", group=0, groups=2)
        synced = [one.path for one in pair.double.requests if one.method == "PUT"]
        assert len(synced) == 1 and synced[0].endswith("/commands")
        await (await pair.double.slash(pair.ada, pair.towns[1].square, "chat", text="Tell me"))
        await until(lambda: len(pair.answers(pair.towns[1].square)) == 1)
        assert len(await second.rows("SELECT * FROM replies")) == 1


async def test_privacy_says_that_it_speaks_for_one_group(pair: Pair, tmp_path: Path) -> None:
    """What another group keeps of somebody is not in this group's database."""
    async with AsyncExitStack() as stack:
        for group in range(2):
            await start(stack, pair.double, tmp_path / str(group), group=group, groups=2)
        for command in ("privacy show", "privacy opt-out", "privacy forget"):
            asked = await pair.double.slash(pair.ada, pair.towns[1].square, command)
            await asked
            assert asked.response.content.endswith(privacy.IN_PARTS)


async def test_more_shards_move_no_server(pair: Pair, tmp_path: Path) -> None:
    """A group that runs more shards beside one that does not: still every server once."""
    async with AsyncExitStack() as stack:
        first = await start(stack, pair.double, tmp_path / "zero", group=0, groups=2, shards=4)
        await start(stack, pair.double, tmp_path / "one", group=1, groups=2)
        assert first.bot.share.ids == (0, 2)
        for town in pair.towns:
            await pair.ask(town)
            await until(lambda town=town: len(pair.answers(town.square)) == 1)
        assert [bot_messages(pair, town.square) for town in pair.towns] == [1, 1]
        assert len(await first.rows("SELECT * FROM replies")) == 1


async def test_another_number_of_groups_is_refused_before_anything_is_deleted(
    pair: Pair, tmp_path: Path
) -> None:
    """A bot that would see half of its servers says so and does not connect."""
    async with AsyncExitStack() as stack:
        await start(stack, pair.double, tmp_path)
        for town in pair.towns:
            await pair.ask(town)
            await until(lambda town=town: len(pair.answers(town.square)) == 1)
    seen = len(pair.double.gateway.identifies)
    with pytest.raises(ConfigError, match=r"holds the servers of group 0 of 1, but"):
        async with AsyncExitStack() as stack:
            await start(stack, pair.double, tmp_path, group=1, groups=2)
    assert len(pair.double.gateway.identifies) == seen
    assert len(scopes_in(tmp_path)) == 2


async def test_groups_that_start_at_once_all_get_in(pair: Pair, tmp_path: Path) -> None:
    """Discord takes one identification at a time; who came too soon tries again."""
    pair.double.gateway.identify_gap_s = 0.3
    async with AsyncExitStack() as stack:
        await asyncio.gather(
            *(
                start(stack, pair.double, tmp_path / str(group), group=group, groups=2)
                for group in range(2)
            )
        )
    assert len(pair.double.gateway.identifies) > 2
