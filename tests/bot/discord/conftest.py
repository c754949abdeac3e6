"""A simulated Discord around a real world: real database, real engine on the tiny model.

The world is opened before the simulated Discord, so that its own loops are not taken for the bot's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import discord
import pytest
import pytest_asyncio
import simcord
import yarl
from simcord.env import Env

from bot.discord.bot import ThumbtuneBot, wanted_intents
from bot.world import World, open_world
from core.sections import DiscordSettings
from core.settings import Settings
from tests.bot.conftest import tiny_settings
from tests.discord_double import Double

SETTLE_S = 60.0
"""How long an act may take to settle on a busy machine."""


def discord_settings(
    data_dir: Path, model: Path, *, training: dict[str, object] | None = None, **changes: object
) -> Settings:
    """Settings of a bot whose operator holds a training permission; `changes` are of [discord]."""
    values = {"training_permission": "written, for tests", "person_per_minute": 1000, **changes}
    values = {"channel_per_minute": 10000, **values}
    settings = tiny_settings(data_dir, model)
    return settings.model_copy(
        update={
            "discord": DiscordSettings.model_validate(values),
            "training": settings.training.model_copy(update=training or {}),
        }
    )


def make_bot(world: World, *, message_content: bool = True, members: bool = True) -> ThumbtuneBot:
    """Return a bot for the world, not connected yet."""
    return ThumbtuneBot(
        world, intents=wanted_intents(message_content=message_content, members=members)
    )


@pytest.fixture
def settings(tmp_path: Path, tiny_model: Path) -> Settings:
    """Settings of an empty world; a test file may override them."""
    return discord_settings(tmp_path / "world", tiny_model)


@pytest_asyncio.fixture
async def double(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Double]:
    """Discord on loopback, in the place of discord.py's endpoints."""
    async with Double() as made:
        monkeypatch.setattr(discord.http.Route, "BASE", made.api_url)
        url = yarl.URL(made.gateway_url)
        monkeypatch.setattr(discord.gateway.DiscordWebSocket, "DEFAULT_GATEWAY", url)
        yield made


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    """An open world."""
    async with open_world(settings, lambda _: None) as opened:
        yield opened


@pytest_asyncio.fixture
async def env(world: World) -> AsyncIterator[Env]:
    """A simulated Discord with the bot connected."""
    running = Env(make_bot(world), settle_timeout=SETTLE_S)
    await running.start()
    yield running
    await running.shutdown()
    running._raise_errors_since(running._errors_acknowledged)


class Town:
    """One server with a channel and some people; the first person manages the server."""

    def __init__(self, env: Env, world: World) -> None:
        self.env, self.world = env, world
        self.guild = env.create_guild("Town")
        self.channel = self.guild.create_text_channel("square")
        manager = self.guild.create_role(
            "Manager", permissions=discord.Permissions(manage_guild=True)
        )
        self.admin = self.guild.add_member(env.create_user("admin"), roles=[manager])
        self.ada = self.guild.add_member(env.create_user("ada"))
        self.bob = self.guild.add_member(env.create_user("bob"))

    @property
    def bot(self) -> ThumbtuneBot:
        """The bot that is connected now."""
        assert isinstance(self.env.bot, ThumbtuneBot)
        return self.env.bot

    @property
    def mention(self) -> str:
        """How people speak to the bot."""
        assert self.bot.user is not None
        return self.bot.user.mention

    @property
    def scope(self) -> str:
        """The scope of this server."""
        return self.bot.places.scope(self.guild.id)

    async def rows(self, statement: str, *values: object) -> list[dict[str, object]]:
        """Read rows straight from the database."""
        return await self.world.database.run(
            lambda db: db._connection.all(statement, tuple(values))
        )

    async def opt_in(self, *people: simcord.MemberActor) -> None:
        """Give the consent of these people, as /privacy does."""
        for person in people:
            row = await self.bot.access.person(person.id)
            await self.world.database.run(
                lambda db, one=row.id: db.people.set_consent(one, "given", actor=one)
            )


@pytest_asyncio.fixture
async def town(env: Env, world: World) -> Town:
    """A server with an admin, Ada and Bob."""
    return Town(env, world)
