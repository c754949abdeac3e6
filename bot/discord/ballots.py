"""What stands under the answer to a vote: reasons, the way back, consent, and a correction's form.

Each button and form carries its reply's id, so it works after a restart; what it does is the voting
feature's business. Only the one who voted sees any of these.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import discord
from discord import ui

from bot.discord.answers import guarded
from bot.discord.controls import REPLY
from bot.discord.forms import form
from bot.discord.lasting import LastingView
from bot.discord.wording import votes as words
from bot.feedback import MAX_CORRECTION_CHARS, REASONS

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot
    from bot.discord.cogs.voting import VotingCog

FORM = re.compile(rf"tt:correct:{REPLY}")


def _voting(interaction: discord.Interaction[Any]) -> VotingCog:
    bot: ThumbtuneBot = interaction.client
    return bot.voting


class ReasonButton(
    ui.DynamicItem[ui.Button[Any]], template=rf"tt:why:{REPLY}:(?P<reason>[a-z]+(?: [a-z]+)?)"
):
    """A reason for a 👎; pressed again it is taken off."""

    def __init__(self, reply_id: str, reason: str, *, chosen: bool = False) -> None:
        self.reply_id, self.reason = reply_id, reason
        style = discord.ButtonStyle.primary if chosen else discord.ButtonStyle.secondary
        super().__init__(
            ui.Button(
                label=words.REASON_LABELS.get(reason, reason),
                style=style,
                custom_id=f"tt:why:{reply_id}:{reason}",
                row=0,
            )
        )

    @classmethod
    async def from_custom_id(
        cls, _interaction: discord.Interaction[Any], _item: ui.Item[Any], match: re.Match[str], /
    ) -> ReasonButton:
        """Build the button again from what the message carries."""
        return cls(match["reply"], match["reason"])

    @guarded
    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        """Store the reason."""
        await _voting(interaction).give_reason(interaction, self.reply_id, self.reason)


class TakeBackButton(ui.DynamicItem[ui.Button[Any]], template=rf"tt:back:{REPLY}"):
    """“Take it back” under the answer to a vote."""

    def __init__(self, reply_id: str) -> None:
        self.reply_id = reply_id
        super().__init__(
            ui.Button(
                label=words.TAKE_BACK,
                style=discord.ButtonStyle.secondary,
                custom_id=f"tt:back:{reply_id}",
                row=1,
            )
        )

    @classmethod
    async def from_custom_id(
        cls, _interaction: discord.Interaction[Any], _item: ui.Item[Any], match: re.Match[str], /
    ) -> TakeBackButton:
        """Build the button again from what the message carries."""
        return cls(match["reply"])

    @guarded
    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        """Withdraw the vote."""
        await _voting(interaction).take_back(interaction, self.reply_id)


class OptInButton(ui.DynamicItem[ui.Button[Any]], template=rf"tt:optin:{REPLY}"):
    """“Opt in and keep my correction”."""

    def __init__(self, reply_id: str) -> None:
        self.reply_id = reply_id
        super().__init__(
            ui.Button(
                label=words.OPT_IN_AND_KEEP,
                style=discord.ButtonStyle.success,
                custom_id=f"tt:optin:{reply_id}",
            )
        )

    @classmethod
    async def from_custom_id(
        cls, _interaction: discord.Interaction[Any], _item: ui.Item[Any], match: re.Match[str], /
    ) -> OptInButton:
        """Build the button again from what the message carries."""
        return cls(match["reply"])

    @guarded
    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        """Store the consent, then the correction."""
        await _voting(interaction).opt_in(interaction, self.reply_id)


BUTTONS = (ReasonButton, TakeBackButton, OptInButton)


def vote_view(reply_id: str, kind: str, reasons: Sequence[str] = ()) -> ui.View:
    """Return what stands under the answer to a vote: the reasons of a 👎, and the way back."""
    view = LastingView()
    for reason in REASONS if kind == "down" else ():
        view.add_item(ReasonButton(reply_id, reason, chosen=reason in reasons))
    view.add_item(TakeBackButton(reply_id))
    return view


def correction_form(reply_id: str, text: str) -> ui.Modal:
    """Return the form for a correction, filled with what was said."""
    return form(
        f"tt:correct:{reply_id}",
        title=words.CORRECTION_TITLE,
        label=words.CORRECTION_LABEL,
        text=text,
        limit=MAX_CORRECTION_CHARS,
    )


def opt_in_view(reply_id: str) -> ui.View:
    """Return what stands under a correction that waits for its writer's consent."""
    view = LastingView()
    view.add_item(OptInButton(reply_id))
    return view
