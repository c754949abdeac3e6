"""The door of the chat: who is let in now, and what is said to those who are not.

Limits are told once in a while, not each time; blocked people are told nothing unless they ask by a
command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import discord

from bot.discord.answers import in_time, tell
from bot.discord.wording import chat as words

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot


class Door:
    """Limits, blocks and lengths. All methods run on the event loop."""

    def __init__(self, bot: ThumbtuneBot) -> None:
        self._bot = bot

    async def refusal(self, message: discord.Message) -> str | None:
        """Return what to say to a message that is not answered now: "" is nothing, None lets in."""
        bot = self._bot
        if await bot.access.blocked(message.author.id, message.channel):
            return ""
        for limit, key, say in (
            (bot.person_limit, str(message.author.id), words.slow_down),
            (bot.channel_limit, str(message.channel.id), words.channel_full),
        ):
            if wait_s := limit.take(key):
                return say(wait_s) if limit.first_refusal(key) else ""
        return None

    async def lets_in(self, interaction: discord.Interaction[Any], text: str | None = None) -> bool:
        """Say whether a command or button may begin a reply; if not, the person was told why."""
        refusal = await in_time(interaction, self._against(interaction, text), publicly=True)
        if refusal:
            await tell(interaction, refusal)
        return not refusal

    async def _against(self, interaction: discord.Interaction[Any], text: str | None) -> str:
        bot = self._bot
        if bot.leaving:
            return words.LEAVING
        if await bot.access.blocked(interaction.user.id, interaction.channel):
            return words.BLOCKED
        if text is not None and (fault := self.fault(text)):
            return fault
        if wait_s := bot.person_limit.take(str(interaction.user.id)):
            return words.slow_down(wait_s)
        wait_s = bot.channel_limit.take(str(interaction.channel_id))
        return words.channel_full(wait_s) if wait_s else ""

    def fault(self, text: str) -> str:
        """Return what is wrong with a text, or nothing."""
        limit = self._bot.world.settings.chat.max_message_chars
        if not text.strip():
            return words.EMPTY
        return words.too_long(len(text), limit) if len(text) > limit else ""
