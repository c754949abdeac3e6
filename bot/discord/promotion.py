"""Letting another version speak from Discord: a question first, then the flip, then a public line.

Invariant: what a button does is checked again when it is pressed (the right, the scope, the state
of the version), and the gate is overridden only by the button that says so. Where all servers
share one scope, only the bot's owners move it.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

import discord
from discord import ui

from bot import adapters
from bot.discord.access import NotAllowed
from bot.discord.answers import guarded
from bot.discord.lasting import LastingView
from bot.discord.places import SHARED_SCOPE
from bot.discord.wording import adapters as words
from core.errors import AdapterRefused
from core.generation import BASE
from core.records import Person

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot

log = logging.getLogger(__name__)
_STYLES = {
    "go": (words.PROMOTE, discord.ButtonStyle.primary),
    "force": (words.PROMOTE_ANYWAY, discord.ButtonStyle.danger),
    "no": (words.CANCEL, discord.ButtonStyle.secondary),
}


class PromoteButton(
    ui.DynamicItem[ui.Button[Any]],
    template=r"tt:promote:(?P<press>go|force|no):(?P<name>base|[a-z0-9_-]{1,64}@v[0-9]{1,9})",
):
    """The answer to “shall this version speak?”."""

    def __init__(self, press: str, name: str) -> None:
        self.press, self.name = press, name
        label, style = _STYLES[press]
        super().__init__(
            ui.Button(label=label, style=style, custom_id=f"tt:promote:{press}:{name}")
        )

    @classmethod
    async def from_custom_id(
        cls, _interaction: discord.Interaction[Any], _item: ui.Item[Any], match: re.Match[str], /
    ) -> PromoteButton:
        """Build the button again from what the message carries."""
        return cls(match["press"], match["name"])

    @guarded
    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        """Promote, with the gate overridden only by the button that says so."""
        if self.press == "no":
            await interaction.response.edit_message(content=words.LEFT_AS_IT_WAS, view=None)
            return
        await interaction.response.defer()
        bot: ThumbtuneBot = interaction.client
        person = await bot.access.check(interaction, "adapters")
        await let_speak(bot, interaction, self.name, person, force=self.press == "force")


def promote_view(press: str, name: str) -> ui.View:
    """Return what stands under the question: `press` is `go`, or `force` for a refused version."""
    view = LastingView()
    for one in (press, "no"):
        view.add_item(PromoteButton(one, name))
    return view


async def let_speak(
    bot: ThumbtuneBot,
    interaction: discord.Interaction[Any],
    name: str,
    person: Person,
    *,
    force: bool,
) -> None:
    """Promote a version of this server's scope and tell the channel."""
    require_owner(bot, interaction)
    world, scope = bot.world, bot.places.scope(interaction.guild_id)
    found = await adapters.find(world.database, scope, name)
    before = (await adapters.shelf(world.database, scope)).live
    if found == before:
        await interaction.edit_original_response(content=words.ALREADY_SPEAKS, view=None)
        return
    try:
        await adapters.promote(
            world.database,
            world.settings.data_dir,
            found,
            scope=scope,
            actor=person.id,
            force=force,
        )
    except AdapterRefused as error:
        log.warning("%s was not promoted: %s", found, error)
        await interaction.edit_original_response(content=words.damaged(found, before), view=None)
        return
    if await _follows(bot, interaction, scope, found):
        said = words.now_speaks(interaction.user.mention, found, before)
        await _tell_everybody(interaction, said)


async def roll_back(bot: ThumbtuneBot, interaction: discord.Interaction[Any]) -> None:
    """End a trial, else flip back to what spoke before, and tell the channel."""
    world, scope = bot.world, bot.places.scope(interaction.guild_id)
    stand = await adapters.shelf(world.database, scope)
    if not stand.moved:
        await interaction.edit_original_response(content=words.NOTHING_BEFORE)
        return
    person = await bot.access.person(interaction.user.id)
    try:
        now = await adapters.roll_back(
            world.database, world.settings.data_dir, scope, actor=person.id
        )
    except AdapterRefused as error:
        log.warning("%s was not taken back: %s", stand.live, error)
        said = words.damaged(stand.previous, stand.live)
        await interaction.edit_original_response(content=said)
        return
    speaker, who = now.live or BASE, interaction.user.mention
    if await _follows(bot, interaction, scope, speaker):
        said = words.rolled_back(who, speaker, stand.live)
        if stand.canary:
            said = words.trial_ended(who, stand.canary, speaker)
        await _tell_everybody(interaction, said)


async def _follows(
    bot: ThumbtuneBot, interaction: discord.Interaction[Any], scope: str, wanted: str
) -> bool:
    """Bring the engine in step and tell the admin; False if the version could not be loaded."""
    await bot.world.registry.sync()
    speaking = await bot.world.registry.speaking(scope)
    said = words.done(wanted) if speaking == wanted else words.taken_back(wanted, speaking)
    await interaction.edit_original_response(content=said, view=None)
    return speaking == wanted


async def _tell_everybody(interaction: discord.Interaction[Any], text: str) -> None:
    await interaction.followup.send(text, allowed_mentions=discord.AllowedMentions.none())


def require_owner(bot: ThumbtuneBot, interaction: discord.Interaction[Any]) -> None:
    """Raise NotAllowed where a change would concern other servers too."""
    shared = bot.places.scope(interaction.guild_id) == SHARED_SCOPE
    if shared and interaction.user.id not in bot.access.owners:
        raise NotAllowed(words.OWNERS_ONLY)
