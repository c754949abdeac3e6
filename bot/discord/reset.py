"""Taking a server's settings back to the defaults, after somebody has confirmed it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import discord
from discord import ui

from bot.discord.answers import guarded
from bot.discord.lasting import LastingView
from bot.discord.places import Spot, spot_of
from bot.discord.wording import settings as words
from core.places import ChannelPlace, ServerPlace

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot

Interaction = discord.Interaction[Any]


class ResetButton(ui.DynamicItem[ui.Button[Any]], template=r"tt:settings:(?P<deed>reset|keep)"):
    """The answer to whether everything is to be reset."""

    def __init__(self, deed: str) -> None:
        self.deed = deed
        sure = deed == "reset"
        super().__init__(
            ui.Button(
                label=words.RESET_NOW if sure else words.KEEP,
                style=discord.ButtonStyle.danger if sure else discord.ButtonStyle.secondary,
                custom_id=f"tt:settings:{deed}",
            )
        )

    @classmethod
    async def from_custom_id(
        cls, _interaction: Interaction, _item: ui.Item[Any], match: re.Match[str], /
    ) -> ResetButton:
        """Build the button again from what the message carries."""
        return cls(match["deed"])

    @guarded
    async def callback(self, interaction: Interaction) -> None:
        """Reset, or leave it; whoever presses must still be allowed to."""
        await interaction.response.defer()
        bot: ThumbtuneBot = interaction.client
        person = await bot.access.check(interaction, "settings")
        if self.deed == "reset":
            await reset(bot, spot_of(interaction.channel), person.id)
        text = words.WAS_RESET if self.deed == "reset" else words.LEFT_ALONE
        await interaction.edit_original_response(content=text, view=None)


def reset_view() -> ui.View:
    """Return the two answers to choose from."""
    view = LastingView()
    for deed in ("reset", "keep"):
        view.add_item(ResetButton(deed))
    return view


async def reset(bot: ThumbtuneBot, spot: Spot, actor: str) -> None:
    """Take a server and its channels back to the defaults; where contexts begin stays."""
    defaults: dict[str, None] = dict.fromkeys(ServerPlace.model_fields)
    await bot.places.change_server(spot, actor, **{**defaults, "training": False})
    of_channel = dict.fromkeys(set(ChannelPlace.model_fields) - {"reset_after"})
    for key in await bot.world.database.run(lambda db: db.places.list(spot.server_key)):
        parts = key.removeprefix(f"{spot.server_key}").strip("/").split("/")
        if len(parts) == 1 and parts[0].isdecimal():
            there = Spot(spot.guild_id, int(parts[0]))
            await bot.places.change_channel(there, actor, **of_channel)
