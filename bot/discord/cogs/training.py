"""Training looked after from Discord: /retrain and /training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from discord.ext import commands

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot


class TrainingCog(commands.Cog):
    """Training looked after from Discord: /retrain and /training."""

    def __init__(self, bot: ThumbtuneBot) -> None:
        self._bot = bot
