"""What must be deleted when a message, a channel, a member or a server goes.

Discord holds the talk; what was kept of it goes when Discord's own goes. A message that was edited
changes nothing here: the reply answered, and its vote judged, the old text. What happened while the
bot was away is caught up where it can be seen: servers at the start, members once a day. Messages
deleted meanwhile are not announced afterwards; their text goes with the retention time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

import discord
from discord.ext import commands, tasks

from bot.discord.places import PLATFORM, Spot, server_scope, spot_of
from bot.discord.servers import forget_place, forget_server, known_servers
from bot.discord.wording import privacy as words
from bot.privacy import stop_runs
from core.errors import ThumbtuneError
from core.records import Person
from storage.database import Database

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot

log = logging.getLogger(__name__)
OWN_PAGE_S = 5.0
"""How long the bot itself may take to say that a reply no longer has a page it took away."""
GONE = (10007, 10013)
"""Discord's codes for somebody who is no member, and for an account that is no more."""
BY = "discord"
"""The actor of what is removed because it went on Discord."""


class DeletionCog(commands.Cog):
    """What must be deleted when a message, a channel, a member or a server goes."""

    def __init__(self, bot: ThumbtuneBot) -> None:
        self._bot = bot

    async def cog_load(self) -> None:
        """Begin to look for members who left."""
        self.look_for_members.start()

    async def cog_unload(self) -> None:
        """Stop looking."""
        self.look_for_members.cancel()

    # -- messages

    @commands.Cog.listener()
    async def on_raw_message_delete(self, payload: discord.RawMessageDeleteEvent) -> None:
        """Forget what was made from a message, or shown by it."""
        await self._forget_messages([str(payload.message_id)])

    @commands.Cog.listener()
    async def on_raw_bulk_message_delete(self, payload: discord.RawBulkMessageDeleteEvent) -> None:
        """Forget what was made from any of these messages, or shown by it."""
        await self._forget_messages(sorted(str(one) for one in payload.message_ids))

    @commands.Cog.listener()
    async def on_thumbtune_message_gone(self, message_id: int) -> None:
        """Forget a message that was found missing."""
        await self._forget_messages([str(message_id)])

    async def _forget_messages(self, message_ids: Collection[str]) -> None:
        later = await self._bot.world.database.run(lambda db: _later_pages(db, message_ids))
        await self._forget(set(message_ids) - later)
        if later:
            await asyncio.sleep(OWN_PAGE_S)  # a shorter version takes pages away; then nothing goes
            await self._forget(later)

    async def _forget(self, message_ids: Collection[str]) -> None:
        """Forget messages in the memory and, in one go, in the database."""
        memory = self._bot.world.chat.memory
        for message_id in message_ids:
            memory.forget_source(message_id)
            self._bot.desk.questions.forget_source(message_id)
        shown = await self._bot.world.database.run(lambda db: _forget_all(db, message_ids))
        memory.forget_replies(shown)

    # -- places

    @commands.Cog.listener()
    async def on_guild_channel_delete(self, channel: discord.abc.GuildChannel) -> None:
        """Remove all that was kept of a channel and its threads, and its settings."""
        await self._remove(channel.guild.id, spot_of(channel).channel_key)

    @commands.Cog.listener()
    async def on_raw_thread_delete(self, payload: discord.RawThreadDeleteEvent) -> None:
        """Remove all that was kept of a thread."""
        spot = Spot(payload.guild_id, payload.parent_id, payload.thread_id)
        await self._remove(payload.guild_id, spot.reset_key)

    @commands.Cog.listener()
    async def on_guild_remove(self, guild: discord.Guild) -> None:
        """Remove all of a server that the bot is no longer on; an outage does not come here."""
        await self._remove_server(guild.id)

    @commands.Cog.listener()
    async def on_shard_ready(self, shard_id: int) -> None:
        """Remove what was kept of servers left while the bot was away.

        A shard's READY names every server on it, those in an outage included, so one that is
        missing was left.
        """
        shard_of = self._bot.share.shard_of
        joined = {guild.id for guild in self._bot.guilds}
        known = await self._bot.world.database.run(known_servers)
        left = {one for one in known if one is not None and shard_of(one) == shard_id} - joined
        for guild_id in sorted(left):
            await self._remove_server(guild_id)

    async def _remove_server(self, guild_id: int) -> None:
        await self._remove(guild_id, Spot(guild_id, 0).server_key)
        scope = server_scope(guild_id)
        spoke = await self._bot.world.database.run(lambda db: forget_server(db, guild_id, actor=BY))
        await stop_runs(
            self._bot.world.database,
            self._bot.world.settings.data_dir,
            lambda db: [run for run in db.runs.unfinished() if run.scope == scope],
            BY,
        )
        self._bot.say(words.server_left(scope, spoke))

    async def _remove(self, guild_id: int, key: str) -> None:
        """Remove a place by its key."""
        gone = await self._bot.world.database.run(
            lambda db: forget_place(db, guild_id, key, actor=BY)
        )
        self._bot.world.chat.memory.forget_conversations(gone)
        self._bot.desk.questions.forget_conversations(gone)
        await self._bot.places.remove(key)

    # -- members

    @commands.Cog.listener()
    async def on_raw_member_remove(self, payload: discord.RawMemberRemoveEvent) -> None:
        """Take away the text of somebody who left; told only with the members intent."""
        if self._bot.user is None or payload.user.id != self._bot.user.id:
            await self._member_left(payload.guild_id, payload.user.id)

    @tasks.loop(hours=24)
    async def look_for_members(self) -> None:
        """Ask Discord about everybody whose text is kept: the bot may have been away."""
        for guild in list(self._bot.guilds):
            if guild.unavailable:
                continue
            try:
                await self._look_on(guild)
            except (discord.HTTPException, OSError, ThumbtuneError) as error:
                log.warning("could not ask who left server %s: %s", guild.id, error)  # tomorrow

    @look_for_members.before_loop
    async def _connected(self) -> None:
        await self._bot.wait_until_ready()

    async def _look_on(self, guild: discord.Guild) -> None:
        key = Spot(guild.id, 0).server_key
        kept: Iterable[Person] = await self._bot.world.database.run(
            lambda db: db.people.with_kept_text(key)
        )
        for person in kept:
            try:
                await guild.fetch_member(int(person.platform_id))
            except discord.NotFound as missing:
                if missing.code in GONE:
                    await self._member_left(guild.id, int(person.platform_id))

    async def _member_left(self, guild_id: int, user_id: int) -> None:
        key = Spot(guild_id, 0).server_key
        for person_id in await self._bot.world.database.run(
            lambda db: _redacted(db, str(user_id), key)
        ):
            for memory in self._bot.memories:
                memory.forget_person(person_id)


def _later_pages(db: Database, message_ids: Collection[str]) -> set[str]:
    """Return which of these messages are a reply's second page or a later one."""
    found = set()
    for message_id in message_ids:
        reply = db.replies.of_message(message_id)
        pages = db.replies.messages(reply.id) if reply else []
        if any(page.message_id == message_id and page.position > 0 for page in pages):
            found.add(message_id)
    return found


def _forget_all(db: Database, message_ids: Collection[str]) -> frozenset[str]:
    """Forget messages and return the ids of the replies that they showed, older versions too."""
    shown = set()
    with db.transaction():
        for message_id in message_ids:
            reply = db.replies.of_message(message_id)
            if reply:
                shown |= {reply.id} | {one.id for one in db.replies.versions(reply.id)}
            db.replies.forget_message(message_id, actor=BY)
    return frozenset(shown)


def _redacted(db: Database, platform_id: str, key: str) -> list[str]:
    """Take away a person's text in one place; return their id if they were ever met."""
    met = [one.id for one in db.people.find(platform_id) if one.platform == PLATFORM]
    for person_id in met:
        db.replies.redact(person_id, key_prefix=key, actor=BY)
    return met
