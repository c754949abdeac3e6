"""Showing a reply while it is written: first text within a moment, then as fast as Discord likes.

Invariant: text that was written is shown in the end, whatever fails between; the row says which
messages show it. An edit carries all the text there is by then, so however slow Discord answers,
nothing queues up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

import discord

from bot.chat import ReplyInProgress
from bot.discord.controls import reply_view, retry_view, stop_view
from bot.discord.sheet import PASSING, Sheet
from bot.discord.text import pages, safe
from bot.discord.wording import chat as words
from core.errors import NotFound, ThumbtuneError
from core.records import Reply

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot

log = logging.getLogger(__name__)
LOOK_S = 1.0
"""How often a waiting reply looks at its place in the line."""
LIMIT = 2000
UNKNOWN_MESSAGE = 10008
_NOTICE = {
    "length": words.CUT_AT_LENGTH,
    "deadline": words.CUT_AT_TIME,
    "cancelled": words.STOPPED,
}


def rendered(reply: Reply, *, head: str = "", notice: str = "") -> list[str]:
    """Return the pages of a whole reply, with what there is to say about its end."""
    shown = body(reply.text, head)
    own = _NOTICE.get(reply.finish_reason or "", "")
    if not reply.text.strip() and not own:
        own = words.NOTHING_TO_SAY
    return with_notice(shown, "\n".join(line for line in (own, notice) if line))


def body(text: str, head: str) -> list[str]:
    """Return the pages of a reply so far; none before its first word."""
    shown = safe(text)
    return pages(f"{head}\n{shown}" if head and shown.strip() else shown)


def with_notice(shown: list[str], notice: str) -> list[str]:
    """Put small text under the last page, or on a page of its own where there is no room."""
    if not notice:
        return shown
    if shown and len(shown[-1]) + len(notice) + 1 <= LIMIT:
        return [*shown[:-1], f"{shown[-1]}\n{notice}"]
    return [*shown, notice]


async def view_of(bot: ThumbtuneBot, reply: Reply) -> discord.ui.View:
    """Return the buttons of a whole reply, with its place among the versions."""
    reply_id = reply.id
    versions = await bot.world.database.run(lambda db: db.replies.versions(reply_id))
    ids = [version.id for version in versions]
    position = ids.index(reply_id) + 1 if reply_id in ids else 1
    return reply_view(reply_id, position=position, versions=max(1, len(ids)))


class ReplyWriter:
    """Shows one reply on one sheet; `begun` is set when its first text is there.

    `head` stands before the text, `notice` after its end. A reply that fails leaves an apology with
    the button `retry`, or the older version it should have replaced.
    """

    def __init__(
        self,
        bot: ThumbtuneBot,
        sheet: Sheet,
        *,
        begun: asyncio.Event,
        retry: str = "",
        head: str = "",
        notice: str = "",
        older: Reply | None = None,
    ) -> None:
        self._bot = bot
        self._sheet = sheet
        self._begun = begun
        self._retry = retry
        self._head = head
        self._notice = notice
        self._older = older
        self._text = ""
        self._changed = asyncio.Event()

    async def write(self, writing: ReplyInProgress) -> Reply | None:
        """Show the reply to its end and return it; None if it failed or its message is gone."""
        self._bot.writing()
        reading = asyncio.create_task(self._read(writing), name=f"read-{writing.reply.id}")
        try:
            await self._follow(writing, reading)
            await reading
            reply = await writing.finished()
            return await self._end(reply)
        except NotFound:
            return None  # forgotten or deleted while it was written; its message goes as well
        except ThumbtuneError as error:
            log.warning("reply %s failed: %s", writing.reply.id, error)
            await (self._end(self._older) if self._older else self._apologise())
            return None
        except (discord.HTTPException, *PASSING) as gone:
            log.info("reply %s can no longer be shown: %s", writing.reply.id, gone)
            if isinstance(gone, discord.NotFound) and gone.code == UNKNOWN_MESSAGE:
                self._report(self._sheet.message_ids)
            return None
        finally:
            self._begun.set()
            if not reading.done():
                writing.cancel()
                reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, writing: ReplyInProgress) -> None:
        try:
            async for piece in writing:
                self._text += piece
                self._changed.set()
        finally:
            self._changed.set()

    async def _follow(self, writing: ReplyInProgress, reading: asyncio.Task[None]) -> None:
        """Keep the messages up with the text until it ends."""
        view = stop_view(writing.reply.id)
        while not reading.done():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), LOOK_S)
            self._changed.clear()
            if reading.done():
                return
            shown = self._pages()
            if not shown and writing.ahead():
                shown = [words.queued(writing.ahead())]
            if not shown:
                continue
            await self._bot.pace.ready(self._sheet.key)
            if not reading.done():
                await self._show(writing.reply.id, self._pages() or shown, view)

    async def _show(self, reply_id: str, shown: list[str], view: discord.ui.View) -> None:
        """Show text in between; if Discord fails, the next edit carries it."""
        try:
            added = await self._sheet.put(shown, view)
        except PASSING as error:
            log.info("an edit failed, the next one carries the text: %s", error)
            return
        self._begun.set()
        if added:
            await self._link(reply_id)

    async def _end(self, reply: Reply) -> Reply:
        view = await view_of(self._bot, reply)
        shown = rendered(reply, head=self._head, notice=self._notice)
        await self._sheet.finish(shown, view)
        await self._link(reply.id)
        return reply

    async def _apologise(self) -> None:
        shown = self._pages()
        text = with_notice(shown, words.BROKE_OFF) if shown else [words.ENGINE_FAILED]
        await self._sheet.finish(text, retry_view(self._retry))

    def _pages(self) -> list[str]:
        return body(self._text, self._head)

    async def _link(self, reply_id: str) -> None:
        """Store which messages show the reply, so that votes on them find it."""
        channel_id, ids = str(self._sheet.channel_id), [str(i) for i in self._sheet.message_ids]
        with contextlib.suppress(NotFound):
            await self._bot.world.database.run(
                lambda db: db.replies.show(reply_id, channel_id, ids)
            )
        if self._bot.world.chat.memory.gone(ids):  # deleted before it was known what it shows
            self._report(self._sheet.message_ids)

    def _report(self, message_ids: list[int]) -> None:
        """Let what a missing message showed be forgotten."""
        for message_id in message_ids:
            self._bot.dispatch("thumbtune_message_gone", message_id)
