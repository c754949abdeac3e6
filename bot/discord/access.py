"""Who may do what: admin commands by permission, role or ownership; everybody else may chat and
vote.

Discord hides admin commands by `default_member_permissions`, which a server can loosen, so each
handler is checked again here. Each use, allowed or not, is an audit line, and goes to the server's
log channel where one is set.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import discord
from discord import app_commands

from bot.discord.answers import in_time
from bot.discord.places import PLATFORM, Places, spot_of
from bot.discord.wording import common as words
from core.errors import ThumbtuneError
from core.places import Area
from core.records import Person
from core.settings import Settings
from storage.aio import AsyncDatabase

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot

log = logging.getLogger(__name__)
T = TypeVar("T")


class NotAllowed(ThumbtuneError, app_commands.CheckFailure):
    """The person may not use this command here."""


class Access:
    """Persons and their rights. All methods run on the event loop."""

    def __init__(self, database: AsyncDatabase, settings: Settings, places: Places) -> None:
        self._database = database
        self._settings = settings
        self._places = places
        self.owners: frozenset[int] = frozenset(settings.discord.owners)
        self._posting: set[asyncio.Task[None]] = set()

    async def person(self, user_id: int) -> Person:
        """Return the row of a person; no name is kept, an id is all that is needed."""
        return await self._database.run(lambda db: db.people.ensure(PLATFORM, str(user_id)))

    async def blocked(self, user_id: int, channel: Any) -> bool:
        """Say whether the bot is to ignore this person here."""
        if user_id in self._settings.discord.blocked:
            return True
        return user_id in (await self._places.server(spot_of(channel))).blocked

    async def may(self, user: discord.User | discord.Member, channel: Any, area: Area) -> bool:
        """Say whether a person may use the commands of an area where they stand."""
        if user.id in self.owners:
            return True
        if not isinstance(user, discord.Member):
            return False
        if user.guild_permissions.manage_guild or user.guild.owner_id == user.id:
            return True
        allowed = (await self._places.server(spot_of(channel))).roles.get(area, ())
        return any(role.id in allowed for role in user.roles)

    async def check(self, interaction: discord.Interaction[Any], area: Area) -> Person:
        """Return who asks if they may; each use is written down. Raises NotAllowed."""
        allowed = await self.may(interaction.user, interaction.channel, area)
        person = await self.person(interaction.user.id)
        await self._write_down(interaction, person, area, allowed)
        if not allowed:
            raise NotAllowed(words.NOT_ALLOWED)
        return person

    async def _write_down(
        self, interaction: discord.Interaction[Any], person: Person, area: Area, allowed: bool
    ) -> None:
        """Append the audit line, and tell the log channel. Options are left out: they hold text."""
        what = _name_of(interaction)
        subject = f"{PLATFORM}/{interaction.guild_id or 'dm'}"
        await self._database.run(
            lambda db: db.events.add(
                person.id, "discord.used", subject, command=what, area=area, allowed=allowed
            )
        )
        if interaction.guild is None:
            return
        server = await self._places.server(spot_of(interaction.channel))
        channel = interaction.guild.get_channel_or_thread(server.log_channel)
        if isinstance(channel, discord.abc.Messageable):
            line = words.log_line(interaction.user.mention, what, allowed=allowed)
            posting = asyncio.create_task(_post(channel, line), name="log-line")
            self._posting.add(posting)  # the answer must not wait for the log channel's limits
            posting.add_done_callback(self._posting.discard)


def admin(area: Area) -> Callable[[T], T]:
    """Let an app command run only for those who may; each use is an audit line."""

    async def predicate(interaction: discord.Interaction[Any]) -> bool:
        bot: ThumbtuneBot = interaction.client
        await in_time(interaction, bot.access.check(interaction, area))
        return True

    return app_commands.check(predicate)


def _name_of(interaction: discord.Interaction[Any]) -> str:
    if interaction.command is not None:
        return f"/{interaction.command.qualified_name}"
    data: dict[str, Any] = dict(interaction.data or {})
    return ":".join(str(data.get("custom_id", "a button")).split(":")[:2])


async def _post(channel: discord.abc.Messageable, text: str) -> None:
    try:
        await channel.send(text, allowed_mentions=discord.AllowedMentions.none())
    except discord.HTTPException as error:
        log.warning("could not write to the log channel: %s", error)  # the use itself must go on
