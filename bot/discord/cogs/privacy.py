"""What is kept of people: /privacy show, opt-in, opt-out, export and forget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from discord.ext import commands

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot


class PrivacyCog(commands.Cog):
    """What is kept of people: /privacy show, opt-in, opt-out, export and forget."""

    def __init__(self, bot: ThumbtuneBot) -> None:
        self._bot = bot
