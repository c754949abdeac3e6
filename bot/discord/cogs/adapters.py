"""Adapters looked after from Discord: /adapter list, show, compare, promote and rollback."""

from __future__ import annotations

from typing import TYPE_CHECKING

from discord.ext import commands

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot


class AdaptersCog(commands.Cog):
    """Adapters looked after from Discord: /adapter list, show, compare, promote and rollback."""

    def __init__(self, bot: ThumbtuneBot) -> None:
        self._bot = bot
