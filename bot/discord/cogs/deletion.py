"""What must be deleted when a message, a channel, a member or a server goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from discord.ext import commands

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot


class DeletionCog(commands.Cog):
    """What must be deleted when a message, a channel, a member or a server goes."""

    def __init__(self, bot: ThumbtuneBot) -> None:
        self._bot = bot
