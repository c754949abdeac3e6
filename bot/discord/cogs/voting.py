"""Votes, reasons and corrections by button."""

from __future__ import annotations

from typing import TYPE_CHECKING

from discord.ext import commands

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot


class VotingCog(commands.Cog):
    """Votes, reasons and corrections by button."""

    def __init__(self, bot: ThumbtuneBot) -> None:
        self._bot = bot
