"""The buttons under a reply. Each carries the reply's id, so it works after a restart and on old
messages; what it does is the features' business.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

import discord
from discord import ui

from bot.discord.answers import guarded
from bot.discord.lasting import LastingView
from core.records import ID_DIGITS

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot

REPLY = rf"(?P<reply>r_{ID_DIGITS})"
_EMOJI = {"up": "👍", "down": "👎", "again": "🔁", "edit": "✏️", "stop": "⏹️"}
Step = Literal["older", "newer"]


def _bot(interaction: discord.Interaction[Any]) -> ThumbtuneBot:
    bot: ThumbtuneBot = interaction.client
    return bot


class ReplyButton(
    ui.DynamicItem[ui.Button[Any]], template=rf"tt:(?P<what>up|down|again|edit|stop):{REPLY}"
):
    """👍 👎 🔁 ✏️ ⏹ of one reply."""

    def __init__(self, what: str, reply_id: str) -> None:
        self.what, self.reply_id = what, reply_id
        super().__init__(
            ui.Button(
                emoji=_EMOJI[what],
                style=discord.ButtonStyle.secondary,
                custom_id=f"tt:{what}:{reply_id}",
            )
        )

    @classmethod
    async def from_custom_id(
        cls, _interaction: discord.Interaction[Any], _item: ui.Item[Any], match: re.Match[str], /
    ) -> ReplyButton:
        """Build the button again from what the message carries."""
        return cls(match["what"], match["reply"])

    @guarded
    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        """Hand the press to the feature it belongs to."""
        bot = _bot(interaction)
        match self.what:
            case "up" | "down":
                await bot.voting.vote(interaction, self.reply_id, self.what)
            case "edit":
                await bot.voting.edit(interaction, self.reply_id)
            case "again":
                await bot.desk.again(interaction, self.reply_id)
            case "stop":
                await bot.desk.stop(interaction, self.reply_id)


class VersionButton(ui.DynamicItem[ui.Button[Any]], template=rf"tt:(?P<step>older|newer):{REPLY}"):
    """◀ ▶ between the versions of a reply; `reply_id` is the one shown now."""

    def __init__(self, step: Step, reply_id: str, *, disabled: bool = False) -> None:
        self.step, self.reply_id = step, reply_id
        super().__init__(
            ui.Button(
                emoji="◀️" if step == "older" else "▶️",
                style=discord.ButtonStyle.secondary,
                custom_id=f"tt:{step}:{reply_id}",
                disabled=disabled,
                row=1,
            )
        )

    @classmethod
    async def from_custom_id(
        cls, _interaction: discord.Interaction[Any], _item: ui.Item[Any], match: re.Match[str], /
    ) -> VersionButton:
        """Build the button again from what the message carries."""
        return cls("older" if match["step"] == "older" else "newer", match["reply"])

    @guarded
    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        """Show the neighbouring version."""
        await _bot(interaction).desk.turn(interaction, self.reply_id, self.step)


class RetryButton(
    ui.DynamicItem[ui.Button[Any]], template=r"tt:retry:(?P<token>m[0-9]{1,20}|x[0-9a-f]{16})"
):
    """“Try again”: `token` is `m` and the id of the message to answer, or `x` and a memory key."""

    def __init__(self, token: str) -> None:
        self.token = token
        super().__init__(
            ui.Button(
                label="Try again",
                emoji="🔁",
                style=discord.ButtonStyle.primary,
                custom_id=f"tt:retry:{token}",
            )
        )

    @classmethod
    async def from_custom_id(
        cls, _interaction: discord.Interaction[Any], _item: ui.Item[Any], match: re.Match[str], /
    ) -> RetryButton:
        """Build the button again from what the message carries."""
        return cls(match["token"])

    @guarded
    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        """Answer the same question once more."""
        await _bot(interaction).desk.retry(interaction, self.token)


BUTTONS = (ReplyButton, VersionButton, RetryButton)


def reply_view(reply_id: str, *, position: int = 1, versions: int = 1) -> ui.View:
    """Return what stands under a whole reply: the votes, and ◀ ▶ where there are versions."""
    view = LastingView()
    for what in ("up", "down", "again", "edit"):
        view.add_item(ReplyButton(what, reply_id))
    if versions > 1:
        view.add_item(VersionButton("older", reply_id, disabled=position <= 1))
        view.add_item(
            ui.Button(
                label=f"{position} / {versions}", disabled=True, custom_id="tt:position", row=1
            )
        )
        view.add_item(VersionButton("newer", reply_id, disabled=position >= versions))
    return view


def stop_view(reply_id: str) -> ui.View:
    """Return what stands under a reply while it is written."""
    view = LastingView()
    view.add_item(ReplyButton("stop", reply_id))
    return view


def retry_view(token: str) -> ui.View:
    """Return what stands under an apology."""
    view = LastingView()
    view.add_item(RetryButton(token))
    return view
