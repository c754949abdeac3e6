"""Plain 👍 and 👎 reactions as votes, also those cast while the bot was away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from discord.ext import commands

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot


class ReactionsCog(commands.Cog):
    """Plain 👍 and 👎 reactions as votes, also those cast while the bot was away."""

    def __init__(self, bot: ThumbtuneBot) -> None:
        self._bot = bot
