"""What a server or channel sets for itself: /settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from discord.ext import commands

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot


class SettingsCog(commands.Cog):
    """What a server or channel sets for itself: /settings."""

    def __init__(self, bot: ThumbtuneBot) -> None:
        self._bot = bot
