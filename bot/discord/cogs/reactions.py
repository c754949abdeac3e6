"""Plain 👍 and 👎 reactions as votes, also those cast while the bot was away.

Invariant: what happens to one message is taken in the order it came, and a comparison with Discord
never runs between two of them. Nothing is ever posted for a reaction; reactions of bots never
count. One known gap: who put up a thumb in two skin tones and takes one back has withdrawn, until
the next comparison finds the other.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import discord
from discord.ext import commands, tasks

from bot.discord.places import guild_of
from bot.feedback import Thumb
from core.errors import Conflict
from core.records import Reply, utc_text

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot

log = logging.getLogger(__name__)
PAGE = 100
COMPARED = 2000
"""How many messages are compared for each shard after a connection, newest first."""
KNOWN_USERS = 5000
EARLY = 500
EARLY_S = 10.0
"""How often a message with thumbs on an unfinished reply is looked at again."""
UNKNOWN_CHANNEL, UNKNOWN_MESSAGE = 10003, 10008
_KINDS: dict[str, Thumb] = {"👍": "up", "👎": "down"}
_TONES = "\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff\ufe0f"


def kind_of(emoji: discord.PartialEmoji | discord.Emoji | str) -> Thumb | None:
    """Return which vote an emoji is, in any skin tone; None for every other one."""
    return _KINDS.get(str(emoji).rstrip(_TONES))


class ReactionsCog(commands.Cog):
    """Reactions on messages that show a reply."""

    def __init__(self, bot: ThumbtuneBot) -> None:
        self._bot = bot
        self._feedback = bot.world.feedback
        self._turns: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self._bots: OrderedDict[int, bool] = OrderedDict()
        self._early: OrderedDict[int, int] = OrderedDict()
        self._comparing: dict[int, asyncio.Task[None]] = {}

    async def cog_load(self) -> None:
        """Begin to look after reactions that came before the end of their reply."""
        self._look_again.start()

    async def cog_unload(self) -> None:
        """Stop what runs in the background."""
        self._look_again.cancel()
        for task in self._comparing.values():
            task.cancel()
        await asyncio.gather(*self._comparing.values(), return_exceptions=True)

    # -- as they come

    @commands.Cog.listener()
    async def on_raw_reaction_add(self, payload: discord.RawReactionActionEvent) -> None:
        """Count a thumb."""
        kind = kind_of(payload.emoji)
        if kind is None or self._is_me(payload.user_id):
            return
        async with self._turn(payload.message_id):
            reply = await self._shown_by(payload.message_id)
            if reply is None or not await self._counts(payload):
                return
            if reply.state == "pending":
                self._remember_early(payload.message_id, payload.channel_id)
                return
            person = await self._bot.access.person(payload.user_id)
            await self._react(payload.message_id, person.id, kind)

    @commands.Cog.listener()
    async def on_raw_reaction_remove(self, payload: discord.RawReactionActionEvent) -> None:
        """Take a thumb back. Who is blocked may do that too."""
        kind = kind_of(payload.emoji)
        if kind is None:
            return
        async with self._turn(payload.message_id):
            known = await self._feedback.reactions(str(payload.message_id))
            if (str(payload.user_id), kind) in known:
                await self._unreact(payload.message_id, payload.user_id, kind)

    @commands.Cog.listener()
    async def on_raw_reaction_clear(self, payload: discord.RawReactionClearEvent) -> None:
        """Take back every thumb on a message whose reactions somebody cleared."""
        await self._clear(payload.message_id, ("up", "down"))

    @commands.Cog.listener()
    async def on_raw_reaction_clear_emoji(
        self, payload: discord.RawReactionClearEmojiEvent
    ) -> None:
        """Take back the thumbs of the kind that somebody cleared."""
        kind = kind_of(payload.emoji)
        if kind is not None:
            await self._clear(payload.message_id, (kind,))

    async def _clear(self, message_id: int, kinds: Sequence[Thumb]) -> None:
        async with self._turn(message_id):
            known = await self._feedback.reactions(str(message_id))
            for user_id, kind in known:
                for cleared in kinds:
                    if kind == cleared:
                        await self._unreact(message_id, int(user_id), cleared)

    async def _react(self, message_id: int, person_id: str, kind: Thumb) -> None:
        try:
            await self._feedback.react(str(message_id), person_id, kind)
        except Conflict:
            log.info("message %s shows a reply that failed; its reactions do not count", message_id)

    async def _unreact(self, message_id: int, user_id: int, kind: Thumb) -> None:
        person = await self._bot.access.person(user_id)
        await self._feedback.unreact(str(message_id), person.id, kind)

    # -- whose they are

    async def _counts(self, payload: discord.RawReactionActionEvent) -> bool:
        """Say whether a reaction is a person's, and one who is not blocked here."""
        if payload.guild_id is None:
            robot = False  # in direct messages there are only this bot and the person
        elif payload.member is not None:
            robot = payload.member.bot
        else:
            robot = await self._is_bot(payload.user_id)
        channel = self._bot.get_partial_messageable(payload.channel_id, guild_id=payload.guild_id)
        return not robot and not await self._bot.access.blocked(payload.user_id, channel)

    async def _is_bot(self, user_id: int) -> bool:
        """Ask once who a user is; one who cannot be found counts as a bot."""
        if user_id not in self._bots:
            try:
                user = self._bot.get_user(user_id) or await self._bot.fetch_user(user_id)
            except discord.HTTPException as error:
                log.warning(
                    "could not look up user %s, so their reaction waits: %s", user_id, error
                )
                return True
            self._bots[user_id] = user.bot
            while len(self._bots) > KNOWN_USERS:
                self._bots.popitem(last=False)
        return self._bots[user_id]

    def _is_me(self, user_id: int) -> bool:
        return self._bot.user is not None and user_id == self._bot.user.id

    # -- before the reply's end

    def _remember_early(self, message_id: int, channel_id: int) -> None:
        self._early[message_id] = channel_id
        while len(self._early) > EARLY:
            self._early.popitem(last=False)

    @tasks.loop(seconds=EARLY_S)
    async def _look_again(self) -> None:
        """Count the thumbs that came while their reply was being written."""
        for message_id, channel_id in list(self._early.items()):
            reply = await self._shown_by(message_id)
            if reply is not None and reply.state == "pending":
                continue
            self._early.pop(message_id, None)
            if reply is not None:
                await self._compare_channel(channel_id, [message_id])

    # -- after a time away

    @commands.Cog.listener()
    async def on_shard_ready(self, shard_id: int) -> None:
        """Compare what is known with Discord, from the newest message on; a later READY of the
        shard begins anew.
        """
        if shard_id in self._comparing:
            self._comparing[shard_id].cancel()
        self._comparing[shard_id] = asyncio.create_task(
            self._compare_shard(shard_id), name=f"compare-reactions-{shard_id}"
        )

    async def _compare_shard(self, shard_id: int) -> None:
        share = self._bot.share
        days = self._bot.world.settings.discord.reconcile_days
        since = utc_text(datetime.now(UTC) - timedelta(days=days))
        limit = COMPARED * len(share.ids)
        found = await self._bot.world.database.run(
            lambda db: db.replies.shown_since(since, limit=limit)
        )
        shown = [one for one in found if share.shard_of(guild_of(one.place)) == shard_id]
        channels: dict[int, list[int]] = {}
        for message in shown:
            if message.channel_id:
                channels.setdefault(int(message.channel_id), []).append(int(message.message_id))
        for channel_id, message_ids in channels.items():
            await self._compare_channel(channel_id, message_ids)

    async def _compare_channel(self, channel_id: int, message_ids: Sequence[int]) -> None:
        try:
            channel: Any = self._bot.get_channel(channel_id)
            channel = channel or await self._bot.fetch_channel(channel_id)
            await self._compare_messages(channel, sorted(message_ids, reverse=True))
        except discord.NotFound as gone:
            if gone.code == UNKNOWN_CHANNEL:
                self._report_gone(message_ids)
        except discord.HTTPException as error:
            log.warning("reactions in channel %s cannot be read, skipped: %s", channel_id, error)
        except Exception:
            log.exception("comparing channel %s failed", channel_id)  # the other channels go on

    async def _compare_messages(self, channel: Any, waiting: list[int]) -> None:
        """Compare messages, newest first, reading them in pages of the channel's history."""
        while waiting:
            before = discord.Object(waiting[0] + 1)
            limit = PAGE if len(waiting) > 1 else 1
            page = {m.id: m async for m in channel.history(limit=limit, before=before)}
            floor = min(page) if len(page) == limit else 0
            for message_id in (one for one in waiting if one >= floor):
                await self._compare(channel, message_id, page.get(message_id))
            waiting = [one for one in waiting if one < floor]

    async def _compare(self, channel: Any, message_id: int, seen: discord.Message | None) -> None:
        """Bring one message's thumbs up to date; `seen` None was in no page of the history.

        Equal counts may hide that one person left and another came, so wherever there is a thumb
        its people are listed.
        """
        async with self._turn(message_id):
            known = await self._feedback.reactions(str(message_id))
            if seen is not None and not known and not _thumbs(seen):
                return
            try:
                message = await channel.fetch_message(message_id)
            except discord.NotFound as gone:
                if gone.code != UNKNOWN_MESSAGE:
                    raise
                self._report_gone((message_id,))
                return
            there = await self._people(channel, message, known)
            try:
                await self._feedback.sync_reactions(str(message_id), there)
            except Conflict:
                log.info("message %s shows a reply that is not whole; left as it is", message_id)

    async def _people(
        self, channel: Any, message: discord.Message, known: set[tuple[str, str]]
    ) -> dict[str, set[str]]:
        """List who has a thumb on a message; who is blocked keeps what was counted before."""
        there: dict[str, set[str]] = {"up": set(), "down": set()}
        for reaction, kind in _thumbs(message):
            async for user in reaction.users():
                if user.bot:
                    continue
                was_known = (str(user.id), kind) in known
                if was_known or not await self._bot.access.blocked(user.id, channel):
                    there[kind].add((await self._bot.access.person(user.id)).id)
        return there

    def _report_gone(self, message_ids: Sequence[int]) -> None:
        for message_id in message_ids:
            self._bot.dispatch("thumbtune_message_gone", message_id)

    async def _shown_by(self, message_id: int) -> Reply | None:
        return await self._bot.world.database.run(lambda db: db.replies.of_message(str(message_id)))

    def _turn(self, message_id: int) -> asyncio.Lock:
        """Return the message's lock; who waits for it is let in in order."""
        return self._turns.setdefault(message_id, asyncio.Lock())


def _thumbs(message: discord.Message) -> list[tuple[discord.Reaction, Thumb]]:
    kinds = ((reaction, kind_of(reaction.emoji)) for reaction in message.reactions)
    return [(reaction, kind) for reaction, kind in kinds if kind is not None]
