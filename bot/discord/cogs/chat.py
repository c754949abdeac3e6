"""Chatting: mentions, replies, direct messages, threads, /chat, /reset and a message menu.

Invariant: a message is answered once, however often the gateway tells of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import discord
from discord import app_commands
from discord.ext import commands

from bot.discord.answers import acknowledge, in_time, tell
from bot.discord.asking import ask_of, asked_head, question_of
from bot.discord.attention import is_addressed
from bot.discord.context import build_for_command, spoken
from bot.discord.controls import BUTTONS, retry_view
from bot.discord.places import spot_of
from bot.discord.questions import Question
from bot.discord.sheet import answer_sheet, command_sheet
from bot.discord.wording import chat as words
from core.errors import ThumbtuneError

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot

log = logging.getLogger(__name__)
SEEN = 5000
"""Ids of answered messages kept, so that a replayed event is answered once."""
SPOKEN = (discord.MessageType.default, discord.MessageType.reply)


class ChatCog(commands.Cog):
    """Chatting: mentions, replies, direct messages, threads, /chat, /reset and a message menu."""

    def __init__(self, bot: ThumbtuneBot) -> None:
        self._bot = bot
        self._seen: OrderedDict[int, None] = OrderedDict()
        self._random = random.Random()
        self._menu = app_commands.ContextMenu(name="Reply to this", callback=self._reply_to)

    async def cog_load(self) -> None:
        """Register the buttons and the menu; they work on messages of any age."""
        self._bot.add_dynamic_items(*BUTTONS)
        self._bot.tree.add_command(self._menu)

    async def cog_unload(self) -> None:
        """Take the menu away."""
        self._bot.tree.remove_command(self._menu.name, type=self._menu.type)

    # -- messages

    @commands.Cog.listener()
    async def on_message(self, message: discord.Message) -> None:
        """Answer a message, if it is addressed to the bot."""
        if message.author.bot or message.type not in SPOKEN or self._bot.leaving:
            return
        if not await is_addressed(self._bot, message, self._random) or self._known(message.id):
            return
        refusal = await self._bot.door.refusal(message)
        with contextlib.suppress(discord.Forbidden, discord.NotFound):
            if refusal is None:
                await self._answer(message)
            elif refusal:
                await self._say(message, refusal)

    @commands.Cog.listener()
    async def on_shard_ready(self, _shard_id: int) -> None:
        """Mend what a restart cut off."""
        await self._bot.desk.mend()

    def _known(self, message_id: int) -> bool:
        known = message_id in self._seen
        self._seen[message_id] = None
        while len(self._seen) > SEEN:
            self._seen.popitem(last=False)
        return known

    async def _answer(self, message: discord.Message) -> None:
        text = spoken(self._bot, message)
        fault = self._bot.door.fault(text) if text else self._why_empty(message)
        if fault:
            await self._say(message, fault)
            return
        try:
            await self._reply(message)
        except ThumbtuneError as error:
            log.warning("message %s could not be answered: %s", message.id, error)
            await self._say(message, words.ENGINE_FAILED, retry_view(f"m{message.id}"))

    async def _reply(self, message: discord.Message) -> None:
        desk = self._bot.desk
        async with typing_in(message.channel) as begun:
            question = await question_of(self._bot, message)
            if not await self._offered_two(message, question):
                sheet = answer_sheet(message)
                await desk.write(question, sheet, asker=message.author.id, begun=begun)

    def _why_empty(self, message: discord.Message) -> str:
        if message.attachments or message.stickers:
            return words.ATTACHMENT_ONLY
        return words.EMPTY if message.content else words.CONTENT_HIDDEN

    async def _offered_two(self, message: discord.Message, question: Question) -> bool:
        """Now and then, where an admin wants it, show two replies to choose from instead."""
        one_in = (await self._bot.places.server(spot_of(message.channel))).arena_one_in
        if not one_in or self._random.randrange(one_in):
            return False
        return await self._bot.arena.offer(
            ask=question.ask, channel=message.channel, answer_to=message
        )

    async def _say(
        self, message: discord.Message, text: str, view: discord.ui.View | None = None
    ) -> None:
        more: dict[str, Any] = {"view": view} if view else {}
        reference = message.to_reference(fail_if_not_exists=False)
        await message.channel.send(text, reference=reference, mention_author=False, **more)

    # -- commands

    @app_commands.command(name="chat")
    @app_commands.describe(text="What you want to say")
    async def chat(self, interaction: discord.Interaction[Any], text: str) -> None:
        """Ask me something; useful where I cannot read messages."""
        if not await self._bot.door.lets_in(interaction, text):
            return
        await acknowledge(interaction, publicly=True)
        desk = self._bot.desk
        context = await build_for_command(self._bot, interaction, text.strip())
        person = await self._bot.access.person(interaction.user.id)
        ask = await ask_of(self._bot, spot_of(interaction.channel), context, person)
        question = desk.questions.hold(ask, asked_head(text))
        sheet = command_sheet(interaction)
        await desk.write(question, sheet, asker=interaction.user.id, begun=asyncio.Event())

    async def _reply_to(
        self, interaction: discord.Interaction[Any], message: discord.Message
    ) -> None:
        """Answer a message that somebody pointed at."""
        text = spoken(self._bot, message)
        if message.author.bot or not text:
            await tell(interaction, words.NOTHING_TO_REPLY_TO)
            return
        if not await self._bot.door.lets_in(interaction, text):
            return
        await acknowledge(interaction, publicly=True)
        question = replace(await question_of(self._bot, message), head=asked_head(text))
        sheet = command_sheet(interaction)
        await self._bot.desk.write(
            question, sheet, asker=interaction.user.id, begun=asyncio.Event()
        )

    @app_commands.command(name="reset")
    async def reset(self, interaction: discord.Interaction[Any]) -> None:
        """Begin anew here: I no longer look at what was said before."""
        await tell(interaction, await in_time(interaction, self._reset(interaction)))

    async def _reset(self, interaction: discord.Interaction[Any]) -> str:
        if await self._bot.access.blocked(interaction.user.id, interaction.channel):
            return words.BLOCKED
        person = await self._bot.access.person(interaction.user.id)
        await self._bot.places.reset(spot_of(interaction.channel), interaction.id, person.id)
        return words.RESET


@contextlib.asynccontextmanager
async def typing_in(channel: discord.abc.Messageable) -> AsyncIterator[asyncio.Event]:
    """Show that the bot is typing until the event is set, or the block ends."""
    begun = asyncio.Event()

    async def type_on() -> None:
        with contextlib.suppress(discord.HTTPException):  # a courtesy: the reply must not need it
            async with channel.typing():
                await begun.wait()

    typing = asyncio.create_task(type_on(), name="typing")
    try:
        yield begun
    finally:
        begun.set()
        await asyncio.gather(typing, return_exceptions=True)
