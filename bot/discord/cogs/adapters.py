"""Adapters looked after from Discord: /adapter list, show, compare, promote and rollback.

Invariant: a server sees and moves the versions of its own scope only. How versions look is in
bot.discord.versions, how another one comes to speak in bot.discord.promotion.
"""

from __future__ import annotations

import asyncio
import io
import logging
from typing import TYPE_CHECKING, Any

import discord
from discord import app_commands
from discord.ext import commands

from bot import adapters
from bot.adapters import Shelf
from bot.arena import ArenaService
from bot.discord.access import admin
from bot.discord.answers import acknowledge, in_time, tell
from bot.discord.charts import likes_chart
from bot.discord.promotion import PromoteButton, promote_view, require_owner, roll_back
from bot.discord.text import excerpt
from bot.discord.versions import compare_embed, list_embed, show_embed, standing_of
from bot.discord.wording import adapters as words
from core.errors import Conflict
from core.generation import BASE
from core.records import AdapterRecord

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot

log = logging.getLogger(__name__)
CHOICES_SHOWN = 25
"""Discord shows no more in an autocomplete."""
REASON_CHARS = 900


class AdaptersCog(commands.Cog):
    """Adapters looked after from Discord: /adapter list, show, compare, promote and rollback."""

    adapter = app_commands.Group(
        name="adapter",
        description="My versions on this server: what they can, and which one speaks",
        guild_only=True,
        default_permissions=discord.Permissions(manage_guild=True),
    )

    def __init__(self, bot: ThumbtuneBot) -> None:
        self._bot = bot
        world = bot.world
        self._arena = ArenaService(world.database, world.chat, world.registry)

    async def cog_load(self) -> None:
        """Register the buttons; they work after a restart."""
        self._bot.add_dynamic_items(PromoteButton)

    # -- looking

    @adapter.command(name="list")
    @admin("adapters")
    async def list_(self, interaction: discord.Interaction[Any]) -> None:
        """Show my versions here, newest first, and which one speaks."""
        stand = await in_time(interaction, self._shelf(interaction))
        trial = await self._bot.world.canary.standing(self._scope(interaction))
        await tell(interaction, "", embed=list_embed(stand, trial))

    @adapter.command(name="show")
    @app_commands.describe(name="Which version")
    @admin("adapters")
    async def show(self, interaction: discord.Interaction[Any], name: str) -> None:
        """Show one version: how it was made, how it was judged, how it is liked."""
        await acknowledge(interaction)
        found = await self._find(interaction, name)
        if found == BASE:
            await tell(interaction, words.BASE_HAS_NO_PAGE)
            return
        stand = await self._shelf(interaction)
        record = next(one for one in stand.adapters if one.name == found)
        run = await adapters.run_of(self._bot.world.database, record)
        likes = stand.likes.get(found, (0, 0))
        trial = await self._bot.world.canary.standing(self._scope(interaction))
        on_trial = trial if trial and trial.trial.candidate == found else None
        embed = show_embed(record, run, likes, self._reason(record), on_trial)
        await _send_with_chart(interaction, embed, stand.rates)

    @adapter.command(name="compare")
    @app_commands.describe(name="One version", other="The version it is compared with")
    @app_commands.rename(other="with")
    @admin("adapters")
    async def compare(
        self, interaction: discord.Interaction[Any], name: str = "", other: str = ""
    ) -> None:
        """Set two versions side by side: votes, blind matches and checks."""
        await acknowledge(interaction)
        pair = await self._pair(interaction, name, other)
        if pair is None:
            said = words.SAME_TWICE if name or other else words.NOTHING_TO_COMPARE
            await tell(interaction, said)
            return
        scope = self._scope(interaction)
        figures = await adapters.side_by_side(self._bot.world.database, scope, *pair)
        standing = standing_of(await self._arena.tallies(scope), *pair)
        rates = [(one.name, *one.likes) for one in reversed(figures)]
        await _send_with_chart(interaction, compare_embed(figures, standing), rates)

    # -- moving

    @adapter.command(name="promote")
    @app_commands.describe(name="The version that is to speak; base is the model before training")
    @admin("adapters")
    async def promote(self, interaction: discord.Interaction[Any], name: str) -> None:
        """Let a version speak here, after you have confirmed it."""
        require_owner(self._bot, interaction)
        found = await in_time(interaction, self._find(interaction, name))
        stand = await self._shelf(interaction)
        if found == stand.live:
            await tell(interaction, words.ALREADY_SPEAKS)
            return
        record = next((one for one in stand.adapters if one.name == found), None)
        if record is not None and record.state == "refused":
            reason = excerpt(self._reason(record), REASON_CHARS) or words.REASON_UNKNOWN
            text, press = words.confirm_refused(found, reason), "force"
        else:
            text, press = words.confirm(found, stand.live), "go"
        if stand.canary:
            text = f"{text}\n\n{words.ends_trial(stand.canary)}"
        await tell(interaction, text, view=promote_view(press, found))

    @adapter.command(name="rollback")
    @admin("adapters")
    async def rollback(self, interaction: discord.Interaction[Any]) -> None:
        """End a trial at once; without one, let the version speak that spoke before."""
        require_owner(self._bot, interaction)
        await acknowledge(interaction)
        await roll_back(self._bot, interaction)

    @show.autocomplete("name")
    @compare.autocomplete("name")
    @compare.autocomplete("other")
    @promote.autocomplete("name")
    async def _names(
        self, interaction: discord.Interaction[Any], current: str
    ) -> list[app_commands.Choice[str]]:
        try:
            if not await self._bot.access.may(interaction.user, interaction.channel, "adapters"):
                return []
            stand = await self._shelf(interaction)
        except Exception:
            log.exception("no versions could be offered")  # a command can be typed without them
            return []
        known = [
            *((one.name, str(one.state)) for one in stand.adapters),
            (BASE, "live" if stand.live == BASE else ""),
        ]
        return [
            app_commands.Choice(name=words.choice(name, state), value=name)
            for name, state in known
            if current.strip().lower() in words.choice(name, state).lower() or current == name
        ][:CHOICES_SHOWN]

    def _scope(self, interaction: discord.Interaction[Any]) -> str:
        return self._bot.places.scope(interaction.guild_id)

    def _reason(self, record: AdapterRecord) -> str:
        return adapters.reason_of(record, self._bot.world.settings.data_dir)

    async def _shelf(self, interaction: discord.Interaction[Any]) -> Shelf:
        return await adapters.shelf(self._bot.world.database, self._scope(interaction))

    async def _find(self, interaction: discord.Interaction[Any], name: str) -> str:
        return await adapters.find(self._bot.world.database, self._scope(interaction), name)

    async def _pair(
        self, interaction: discord.Interaction[Any], name: str, other: str
    ) -> tuple[str, str] | None:
        """Return the two names that are meant; those of the arena where none is given."""
        if not name and not other:
            try:
                sides = await self._arena.sides(self._scope(interaction))
            except Conflict:
                return None
            return sides.candidate, sides.reference
        live = (await self._shelf(interaction)).live
        one = await self._find(interaction, name) if name else live
        second = await self._find(interaction, other) if other else (BASE if one == live else live)
        return None if one == second else (one, second)


async def _send_with_chart(
    interaction: discord.Interaction[Any], embed: discord.Embed, rates: list[tuple[str, int, int]]
) -> None:
    shown = [(words.version(name), up, down) for name, up, down in rates]
    png = await asyncio.to_thread(likes_chart, shown)
    embed.set_image(url="attachment://likes.png")
    file = discord.File(io.BytesIO(png), "likes.png")
    await interaction.edit_original_response(embed=embed, attachments=[file])
