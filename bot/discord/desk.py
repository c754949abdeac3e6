"""Where replies are written: questions taken in, answers written, versions turned, one hand at a
time.

Invariant: a message of ours is rewritten by one hand at a time, and whatever fails is said where
the reply would have stood. Knows no commands and no events.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import discord

from bot.chat import ReplyInProgress
from bot.discord.answers import tell
from bot.discord.asking import asked_head, question_of
from bot.discord.context import replied_to, spoken
from bot.discord.controls import Step, retry_view
from bot.discord.places import spot_of
from bot.discord.questions import Question, Questions, as_now, message_of
from bot.discord.sheet import Sheet, standing_sheet
from bot.discord.wording import chat as words
from bot.discord.writer import ReplyWriter, rendered, view_of, with_notice
from core.errors import EngineBusy, NotFound, NotRemembered, ThumbtuneError
from core.records import Person, Reply, ShownMessage, utc_text
from storage.database import Database

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot

log = logging.getLogger(__name__)
STOP = "stop"
MENDED = timedelta(hours=6)
"""How old a reply that was cut off by a restart may be to be mended."""


class Desk:
    """The replies of one bot. All methods run on the event loop."""

    def __init__(self, bot: ThumbtuneBot) -> None:
        self._bot = bot
        self._running: dict[str, tuple[ReplyInProgress, int]] = {}
        self._held: set[int] = set()
        self.questions = Questions()

    # -- buttons

    async def stop(self, interaction: discord.Interaction[Any], reply_id: str) -> None:
        """End a reply that is being written with what it has."""
        running = self._running.get(reply_id)
        if running is None:
            await tell(interaction, words.NOT_RUNNING)
            return
        await interaction.response.defer()
        writing, asker = running
        may = self._bot.access.may
        if interaction.user.id == asker or await may(
            interaction.user, interaction.channel, "settings"
        ):
            writing.cancel()
        else:
            await tell(interaction, words.NOT_YOURS_TO_STOP)

    def stop_all(self) -> None:
        """End every reply that is being written with what it has."""
        for writing, _ in self._running.values():
            writing.cancel()

    async def again(self, interaction: discord.Interaction[Any], reply_id: str) -> None:
        """Write another version over a reply; ◀ ▶ lead back to the older ones."""
        async with self._held_message(interaction) as message:
            if message is None:
                return
            await interaction.response.defer()
            if not await self._bot.door.lets_in(interaction):
                return
            person = await self._bot.access.person(interaction.user.id)
            try:
                writing = await self._another(message, reply_id, person)
            except EngineBusy as busy:
                await tell(interaction, words.again_busy(busy.waiting))
                return
            except NotFound:
                await tell(interaction, words.AGAIN_GONE)
                return
            older = await self._recalled(reply_id)
            writer = ReplyWriter(
                self._bot,
                await self._standing(message, reply_id),
                begun=asyncio.Event(),
                retry=_retry_token(message),
                head=_head_of(message, writing.reply),
                older=older,
            )
            if await self._watched(writing, writer, interaction.user.id) is None:
                await tell(interaction, words.AGAIN_FAILED)

    async def turn(self, interaction: discord.Interaction[Any], reply_id: str, step: Step) -> None:
        """Show the version before or after the one that is shown."""
        async with self._held_message(interaction) as message:
            if message is None:
                return
            await interaction.response.defer()
            if await self._bot.access.blocked(interaction.user.id, interaction.channel):
                await tell(interaction, words.BLOCKED)
                return
            versions = await self._bot.world.database.run(lambda db: db.replies.versions(reply_id))
            ids = [version.id for version in versions]
            place = ids.index(reply_id) + (1 if step == "newer" else -1) if reply_id in ids else -1
            reply = await self._recalled(ids[place]) if 0 <= place < len(ids) else None
            if reply is None:
                await tell(interaction, words.VERSION_GONE)
                return
            sheet = await self._standing(message, reply_id)
            shown = rendered(reply, head=_head_of(message, reply))
            await sheet.finish(shown, await view_of(self._bot, reply))
            ids_shown = [str(one) for one in sheet.message_ids]
            await self._bot.world.database.run(
                lambda db: db.replies.show(reply.id, str(message.channel.id), ids_shown)
            )

    async def retry(self, interaction: discord.Interaction[Any], token: str) -> None:
        """Answer a question once more, over the apology."""
        async with self._held_message(interaction) as message:
            if message is None:
                return
            await interaction.response.defer()
            if not await self._bot.door.lets_in(interaction):
                return
            question = self.questions.get(token)
            if token.startswith("m"):
                asked = await message_of(interaction, int(token[1:]))
                told = asked is not None and not asked.author.bot and spoken(self._bot, asked)
                question = await question_of(self._bot, asked) if asked and told else None
            if question is None:
                await tell(interaction, words.QUESTION_GONE)
                return
            ask = await as_now(question.ask, self._bot.places, spot_of(message.channel))
            sheet = standing_sheet(message.channel, [message])
            await self.write(
                replace(question, ask=ask), sheet, asker=interaction.user.id, begun=asyncio.Event()
            )

    async def mend(self) -> None:
        """Offer another try under replies that a restart cut off; they still carry a ⏹."""
        since = utc_text(datetime.now(UTC) - MENDED)
        shown = await self._bot.world.database.run(lambda db: _failed(db, since))
        for one in shown:
            channel = self._bot.get_partial_messageable(int(one.channel_id))
            with contextlib.suppress(discord.HTTPException):
                message = await channel.fetch_message(int(one.message_id))
                if STOP in {item for row in message.components for item in _kinds(row)}:
                    text = "\n".join(with_notice([message.content], words.RESTARTED))
                    await message.edit(content=text, view=retry_view(_retry_token(message)))

    # -- writing

    async def write(
        self, question: Question, sheet: Sheet, *, asker: int, begun: asyncio.Event
    ) -> Reply | None:
        """Write a reply to a question on a sheet; whatever fails is said there."""
        try:
            writing = await self._bot.world.chat.write(question.ask)
        except EngineBusy as busy:
            await sheet.finish([words.busy(busy.waiting)], retry_view(question.token))
            return None
        except ThumbtuneError as error:
            log.warning("a reply could not be begun: %s", error)
            await sheet.finish([words.ENGINE_FAILED], retry_view(question.token))
            return None
        writer = ReplyWriter(
            self._bot,
            sheet,
            begun=begun,
            retry=question.token,
            head=question.head,
            notice=question.notice,
        )
        return await self._watched(writing, writer, asker)

    async def _watched(
        self, writing: ReplyInProgress, writer: ReplyWriter, asker: int
    ) -> Reply | None:
        """Let ⏹ find the reply while it is written."""
        self._running[writing.reply.id] = (writing, asker)
        try:
            return await writer.write(writing)
        finally:
            del self._running[writing.reply.id]

    async def _another(
        self, message: discord.Message, reply_id: str, person: Person
    ) -> ReplyInProgress:
        """Begin another version; after a restart the question is read from Discord again."""
        chat, places = self._bot.world.chat, self._bot.places
        try:
            ask = await as_now(await chat.asked(reply_id), places, spot_of(message.channel))
        except NotRemembered:
            asked = await replied_to(message)
            if asked is None:
                raise
            ask = (await question_of(self._bot, asked)).ask
        return await chat.again_as(replace(ask, replaces=reply_id), person.id)

    async def _recalled(self, reply_id: str) -> Reply | None:
        try:
            return await self._bot.world.chat.recall(reply_id)
        except NotFound:
            return None

    async def _standing(self, message: discord.Message, reply_id: str) -> Sheet:
        """Return the sheet of the messages that show a reply now."""
        known = await self._bot.world.database.run(lambda db: db.replies.messages(reply_id))
        channel = message.channel
        pages = [
            message if int(one.message_id) == message.id else _part(channel, int(one.message_id))
            for one in known
        ]
        return standing_sheet(channel, pages or [message])

    @contextlib.asynccontextmanager
    async def _held_message(
        self, interaction: discord.Interaction[Any]
    ) -> AsyncIterator[discord.Message | None]:
        """Hold a message against a second hand while it is rewritten; None if one is at it."""
        message = interaction.message
        if message is None or message.id in self._held:
            await tell(interaction, words.STILL_WRITING)
            yield None
            return
        self._held.add(message.id)
        try:
            yield message
        finally:
            self._held.discard(message.id)


def _failed(db: Database, since: str) -> list[ShownMessage]:
    shown = db.replies.shown_since(since)
    return [one for one in shown if db.replies.get(one.reply_id).state == "failed"]


def _kinds(row: Any) -> list[str]:
    """Return what the buttons of a row do, such as `stop`."""
    ids = [str(getattr(item, "custom_id", "")) for item in getattr(row, "children", [])]
    return [one.split(":")[1] for one in ids if one.startswith("tt:")]


def _part(channel: Any, message_id: int) -> Any:
    return channel.get_partial_message(message_id)


def _retry_token(message: discord.Message) -> str:
    asked = message.reference.message_id if message.reference else None
    return f"m{asked or message.id}"


def _head_of(message: discord.Message, reply: Reply) -> str:
    if message.interaction_metadata is None:
        return ""
    asked = [one.content for one in reply.prompt if one.role == "user"]
    return asked_head(asked[-1]) if asked else ""
