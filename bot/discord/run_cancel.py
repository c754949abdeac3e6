"""Stopping a training run: the button under its message, and who may.

The button carries the run's id, so it works after a restart; whoever presses it is checked again.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import discord
from discord import ui

from bot.discord.access import NotAllowed
from bot.discord.answers import guarded, in_time, tell
from bot.discord.lasting import LastingView
from bot.discord.places import SHARED_SCOPE
from bot.discord.wording import training as words
from core.errors import Conflict
from core.records import ID_DIGITS

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot


class CancelButton(
    ui.DynamicItem[ui.Button[Any]], template=rf"tt:cancelrun:(?P<run>run_{ID_DIGITS})"
):
    """“Cancel” under a run's message."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(
            ui.Button(
                label=words.CANCEL,
                style=discord.ButtonStyle.danger,
                custom_id=f"tt:cancelrun:{run_id}",
            )
        )

    @classmethod
    async def from_custom_id(
        cls, _interaction: discord.Interaction[Any], _item: ui.Item[Any], match: re.Match[str], /
    ) -> CancelButton:
        """Build the button again from what the message carries."""
        return cls(match["run"])

    @guarded
    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        """Ask for the run's end."""
        await tell(interaction, await in_time(interaction, self._press(interaction)))

    async def _press(self, interaction: discord.Interaction[Any]) -> str:
        bot: ThumbtuneBot = interaction.client
        await bot.access.check(interaction, "training")
        return await cancel_run(interaction, self.run_id)


def cancel_view(run_id: str) -> ui.View:
    """Return what stands under a run's message while it goes on."""
    view = LastingView()
    view.add_item(CancelButton(run_id))
    return view


def require_owner(interaction: discord.Interaction[Any]) -> str:
    """Return the scope of the server that somebody acts on.

    Where all servers share one, only owners may act: raises NotAllowed.
    """
    bot: ThumbtuneBot = interaction.client
    scope = bot.places.scope(interaction.guild_id)
    if scope == SHARED_SCOPE and interaction.user.id not in bot.access.owners:
        raise NotAllowed(words.OWNERS_ONLY)
    return scope


async def cancel_run(interaction: discord.Interaction[Any], run_id: str) -> str:
    """Ask for the end of a run of this server; return what to say. Raises NotAllowed."""
    bot: ThumbtuneBot = interaction.client
    scope = require_owner(interaction)
    person = await bot.access.person(interaction.user.id)
    run = await bot.world.database.run(lambda db: db.runs.get(run_id))
    if run.scope != scope:
        return words.NOTHING_RUNS
    try:
        await bot.world.learning.cancel(run_id, actor=person.id)
    except Conflict:
        return words.NOTHING_RUNS
    return words.CANCELLING
