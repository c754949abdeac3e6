"""A small bot on the real client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import discord
from discord import app_commands

from tests.discord_double import Double

INTENTS = discord.Intents(
    guilds=True, guild_messages=True, dm_messages=True, guild_reactions=True, dm_reactions=True
)


class Small(discord.Client):
    """A bot that notes every message and answers those with "ping"."""

    def __init__(self, **options: Any) -> None:
        options = {"intents": INTENTS, "guild_ready_timeout": 0.05} | options
        super().__init__(chunk_guilds_at_startup=False, **options)
        self.heard: list[str] = []
        self.resumed = asyncio.Event()
        self.tree = app_commands.CommandTree(self)

    async def on_message(self, message: discord.Message) -> None:
        """Note it, and answer."""
        if message.author == self.user:
            return
        self.heard.append(message.content)
        if "ping" in message.content:
            await message.reply("pong")

    async def before_identify_hook(self, *_: Any, **__: Any) -> None:
        """Identify again without the five seconds that discord.py waits."""

    async def on_resumed(self) -> None:
        """Note it."""
        self.resumed.set()


@asynccontextmanager
async def running(client: Small, double: Double) -> AsyncIterator[Small]:
    """`client` logged in to `double` and ready."""
    task = asyncio.create_task(client.start(double.token))
    ready = asyncio.create_task(client.wait_until_ready())
    done, _ = await asyncio.wait({task, ready}, timeout=5, return_when="FIRST_COMPLETED")
    if task in done:
        ready.cancel()
        await task
    assert ready.done()
    try:
        yield client
    finally:
        await client.close()
        await task


async def until(condition: Callable[[], object], *, timeout_s: float = 4.0) -> None:
    """Wait until `condition` holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)
