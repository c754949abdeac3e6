"""What is kept of people: /privacy show, opt-in, opt-out, export and forget.

Everybody may use them, in direct messages too; only the one who asks sees the answer. Nothing is
taken for consent but the command or the button.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import discord
from discord import app_commands, ui
from discord.ext import commands

from bot.discord.answers import guarded, in_time, tell
from bot.discord.lasting import LastingView
from bot.discord.places import spot_of
from bot.discord.wording import privacy as words
from bot.privacy import Forgotten, Holding, export_person, forget, holding, opt_in, opt_out

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot

Deed = Literal["opt-in", "opt-out", "export", "forget", "forget-now", "keep"]
FILE_NAME = "thumbtune-my-data.json"
_LABELS: dict[Deed, str] = {
    "opt-in": words.OPT_IN,
    "opt-out": words.OPT_OUT,
    "export": words.EXPORT,
    "forget": words.FORGET,
    "forget-now": words.FORGET_NOW,
    "keep": words.KEEP,
}


class PrivacyButton(
    ui.DynamicItem[ui.Button[Any]], template=rf"tt:privacy:(?P<deed>{'|'.join(get_args(Deed))})"
):
    """One deed of /privacy, for whoever presses; the messages it stands under are theirs alone."""

    def __init__(self, deed: Deed) -> None:
        self.deed = deed
        grave = deed in ("forget", "forget-now")
        super().__init__(
            ui.Button(
                label=_LABELS[deed],
                style=discord.ButtonStyle.danger if grave else discord.ButtonStyle.secondary,
                custom_id=f"tt:privacy:{deed}",
            )
        )

    @classmethod
    async def from_custom_id(
        cls, _interaction: discord.Interaction[Any], _item: ui.Item[Any], match: re.Match[str], /
    ) -> PrivacyButton:
        """Build the button again from what the message carries."""
        return cls(cast(Deed, match["deed"]))

    @guarded
    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        """Hand the press to the feature."""
        cog = interaction.client.get_cog(PrivacyCog.__cog_name__)
        await cog.act(interaction, self.deed)


class PrivacyCog(
    commands.GroupCog, group_name="privacy", group_description="What I keep of you, and your say"
):
    """What is kept of people: /privacy show, opt-in, opt-out, export and forget."""

    def __init__(self, bot: ThumbtuneBot) -> None:
        self._bot = bot
        super().__init__()

    async def cog_load(self) -> None:
        """Register the buttons; they work after a restart."""
        self._bot.add_dynamic_items(PrivacyButton)

    @app_commands.command(name="show")
    async def show(self, interaction: discord.Interaction[Any]) -> None:
        """What I keep of you, here and now."""
        held = await in_time(interaction, self._holding(interaction))
        first: Deed = "opt-out" if held.consent == "given" else "opt-in"
        text = await self._status(interaction, held)
        await tell(interaction, text, view=_view(first, "export", "forget"))

    @app_commands.command(name="opt-in")
    async def opt_in(self, interaction: discord.Interaction[Any]) -> None:
        """Let me keep and learn from what you write to me, where a server trains."""
        await self.act(interaction, "opt-in")

    @app_commands.command(name="opt-out")
    async def opt_out(self, interaction: discord.Interaction[Any]) -> None:
        """Take your consent back; the words I kept are removed at once."""
        await self.act(interaction, "opt-out")

    @app_commands.command(name="export")
    async def export(self, interaction: discord.Interaction[Any]) -> None:
        """A copy of everything stored about you, as a file."""
        await self.act(interaction, "export")

    @app_commands.command(name="forget")
    async def forget(self, interaction: discord.Interaction[Any]) -> None:
        """Delete everything stored about you, on every server."""
        await self.act(interaction, "forget")

    async def act(self, interaction: discord.Interaction[Any], deed: Deed) -> None:
        """Do what a command or a button asks, and tell the outcome."""
        match deed:
            case "opt-in":
                await self._opt_in(interaction)
            case "opt-out":
                await self._opt_out(interaction)
            case "export":
                await self._export(interaction)
            case "forget":
                asked = self._said(words.CONFIRM_FORGET)
                await tell(interaction, asked, view=_view("forget-now", "keep"))
            case "forget-now":
                await self._forget(interaction)
            case "keep":
                await interaction.response.edit_message(content=words.LEFT_ALONE, view=None)

    async def _holding(self, interaction: discord.Interaction[Any]) -> Holding:
        person = await self._bot.access.person(interaction.user.id)
        return await holding(self._bot.world.database, person.id)

    async def _opt_in(self, interaction: discord.Interaction[Any]) -> None:
        await in_time(interaction, self._opted_in(interaction))
        await tell(interaction, words.OPTED_IN)

    async def _opted_in(self, interaction: discord.Interaction[Any]) -> None:
        person = await self._bot.access.person(interaction.user.id)
        await opt_in(self._bot.world.database, person.id, from_message=interaction.id)

    async def _opt_out(self, interaction: discord.Interaction[Any]) -> None:
        done = await in_time(interaction, self._opted_out(interaction))
        await tell(interaction, self._said(words.opted_out(done.removed, done.adapters)))

    async def _opted_out(self, interaction: discord.Interaction[Any]) -> Forgotten:
        world, person = self._bot.world, await self._bot.access.person(interaction.user.id)
        return await opt_out(
            world.database,
            world.settings.data_dir,
            person.id,
            actor=person.id,
            memories=self._bot.memories,
        )

    async def _forget(self, interaction: discord.Interaction[Any]) -> None:
        await interaction.response.edit_message(view=None)
        world, person = self._bot.world, await self._bot.access.person(interaction.user.id)
        done = await forget(
            world.database,
            world.settings.data_dir,
            person.id,
            actor=person.id,
            memories=self._bot.memories,
        )
        await tell(interaction, self._said(words.forgotten(done.removed, done.adapters)))

    async def _export(self, interaction: discord.Interaction[Any]) -> None:
        await interaction.response.defer(ephemeral=True, thinking=True)
        person = await self._bot.access.person(interaction.user.id)
        data = await export_person(self._bot.world.database, person.id)
        try:
            await interaction.user.send(self._said(words.COPY), file=_file(data))
        except (discord.Forbidden, discord.HTTPException):
            await tell(interaction, self._said(words.COPY_HERE), file=_file(data))
            return
        await tell(interaction, words.COPY_SENT)

    async def _status(self, interaction: discord.Interaction[Any], held: Holding) -> str:
        settings = self._bot.world.settings
        server = await self._bot.places.server(spot_of(interaction.channel))
        place = "on this server" if interaction.guild_id else "in direct messages"
        parts = [
            words.consent_line(held.consent),
            words.here(
                place,
                training=server.training,
                permitted=bool(settings.discord.training_permission.strip()),
            ),
            words.stored(held.replies, held.votes, held.corrections),
            words.learnt(held.adapters) if held.adapters else "",
            words.retention(settings.privacy.retention_days),
        ]
        return self._said("\n\n".join(part for part in parts if part))

    def _said(self, text: str) -> str:
        """Return the text, and that it holds for this group's servers where there are others."""
        return f"{text}\n\n{words.IN_PARTS}" if self._bot.share.group.total > 1 else text


def _file(data: bytes) -> discord.File:
    return discord.File(io.BytesIO(data), filename=FILE_NAME)


def _view(*deeds: Deed) -> ui.View:
    view = LastingView()
    for deed in deeds:
        view.add_item(PrivacyButton(deed))
    return view
