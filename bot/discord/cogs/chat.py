"""Chatting: mentions, replies, direct messages, threads, /chat, /reset and a message menu."""

from __future__ import annotations

from typing import TYPE_CHECKING

from discord.ext import commands

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot


class ChatCog(commands.Cog):
    """Chatting: mentions, replies, direct messages, threads, /chat, /reset and a message menu."""

    def __init__(self, bot: ThumbtuneBot) -> None:
        self._bot = bot
