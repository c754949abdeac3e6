"""Feedback looked at from Discord: /feedback stats, review and export."""

from __future__ import annotations

from typing import TYPE_CHECKING

from discord.ext import commands

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot


class FeedbackCog(commands.Cog):
    """Feedback looked at from Discord: /feedback stats, review and export."""

    def __init__(self, bot: ThumbtuneBot) -> None:
        self._bot = bot
