"""Two replies side by side, blind: /arena, and one reply in so many where an admin wants it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from discord.ext import commands

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot


class ArenaCog(commands.Cog):
    """Two replies side by side, blind: /arena, and one reply in so many where an admin wants it."""

    def __init__(self, bot: ThumbtuneBot) -> None:
        self._bot = bot
