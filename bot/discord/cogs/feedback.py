"""Feedback looked at from Discord: /feedback stats, review and export."""

from __future__ import annotations

import asyncio
import io
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import discord
from discord import app_commands, ui
from discord.ext import commands

from bot.discord.access import admin
from bot.discord.answers import acknowledge, guarded, in_time, show_form, tell
from bot.discord.charts import likes_chart
from bot.discord.forms import form, sent
from bot.discord.lasting import LastingView
from bot.discord.places import PLATFORM
from bot.discord.run_cancel import require_owner
from bot.discord.text import excerpt
from bot.discord.wording import feedback as words
from bot.exchange import export_raw, export_trl
from bot.feedback import MAX_CORRECTION_CHARS
from bot.review import ReviewService, Standing, Ticket
from core.errors import NotFound
from core.records import ID_DIGITS, Person
from storage.database import Database

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot

UPLOAD_BYTES = 10 * 1024 * 1024
"""What Discord takes in a file of a bot."""
CHART = "likes.png"
QUOTE_CHARS = 900
FEEDBACK = rf"(?P<feedback>f_{ID_DIGITS})"
REVISED = re.compile(rf"tt:revise:{FEEDBACK}")
Form = Literal["raw", "kto", "dpo", "sft"]


class ReviewButton(
    ui.DynamicItem[ui.Button[Any]],
    template=rf"tt:review:(?P<action>accept|edit|drop|skip):{FEEDBACK}",
):
    """Accept, Edit, Drop and Skip under one row of the review."""

    def __init__(self, action: str, feedback_id: str) -> None:
        self.action, self.feedback_id = action, feedback_id
        super().__init__(
            ui.Button(
                label=words.ACTIONS[action],
                style=_STYLES.get(action, discord.ButtonStyle.secondary),
                custom_id=f"tt:review:{action}:{feedback_id}",
            )
        )

    @classmethod
    async def from_custom_id(
        cls, _interaction: discord.Interaction[Any], _item: ui.Item[Any], match: re.Match[str], /
    ) -> ReviewButton:
        """Build the button again from what the message carries."""
        return cls(match["action"], match["feedback"])

    @guarded
    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        """Hand the press to the feature."""
        cog = _cog(interaction)
        if self.action == "edit":
            await cog.open_form(interaction, self.feedback_id)
        else:
            await cog.decide(interaction, self.action, self.feedback_id)


class FeedbackCog(commands.Cog):
    """Feedback looked at from Discord: /feedback stats, review and export."""

    feedback = app_commands.Group(
        name="feedback",
        description="What people say of my replies",
        guild_only=True,
        default_permissions=discord.Permissions(manage_guild=True),
    )

    def __init__(self, bot: ThumbtuneBot) -> None:
        self._bot = bot
        self._review = ReviewService(bot.world.database)

    async def cog_load(self) -> None:
        """Register the buttons."""
        self._bot.add_dynamic_items(ReviewButton)

    # -- stats

    @feedback.command(name="stats", description="Votes, how liked each version is, what may train")
    @admin("feedback")
    async def stats(self, interaction: discord.Interaction[Any]) -> None:
        """Count what was said here."""
        await acknowledge(interaction)
        scope = self._bot.places.scope(interaction.guild_id)
        standing = await self._review.standing(scope)
        rates = [
            (name, one["up"], one["down"]) for name, one in standing.stats["like_rates"].items()
        ]
        image = await asyncio.to_thread(likes_chart, rates)
        embed = _stats_embed(standing).set_image(url=f"attachment://{CHART}")
        await tell(interaction, "", embed=embed, file=discord.File(io.BytesIO(image), CHART))

    # -- review

    @feedback.command(name="review", description="Look at odd votes and corrections one by one")
    @admin("feedback")
    async def review(self, interaction: discord.Interaction[Any]) -> None:
        """Show the first row that waits for a decision."""
        scope = require_owner(interaction)
        ticket = await in_time(interaction, self._review.next(scope))
        if ticket is None:
            await tell(interaction, words.NOTHING_TO_REVIEW)
        else:
            await tell(interaction, "", embed=_ticket_embed(ticket), view=_ticket_view(ticket))

    async def open_form(self, interaction: discord.Interaction[Any], feedback_id: str) -> None:
        """Open the form for a correction; it must be the first answer."""
        scope = await self._checked(interaction)
        try:
            row = await self._review.get(scope, feedback_id)
        except NotFound:
            await self._show(interaction, await self._review.next(scope), said=words.GONE)
        else:
            await show_form(
                interaction,
                form(
                    f"tt:revise:{feedback_id}",
                    title=words.EDIT_TITLE,
                    label=words.EDIT_LABEL,
                    text=row.text or "",
                    limit=MAX_CORRECTION_CHARS,
                ),
            )

    @commands.Cog.listener()
    @guarded
    async def on_interaction(self, interaction: discord.Interaction[Any]) -> None:
        """Take the form behind Edit."""
        if filled := sent(interaction, REVISED):
            match, text = filled
            await self.decide(interaction, "edit", match["feedback"], text=text)

    async def decide(
        self, interaction: discord.Interaction[Any], action: str, feedback_id: str, text: str = ""
    ) -> None:
        """Do what an admin decided, and show the next row in the same message."""
        await interaction.response.defer()
        scope = await self._checked(interaction)
        person = await self._bot.access.person(interaction.user.id)
        try:
            ticket = await self._decided(scope, action, feedback_id, text, person)
        except NotFound:
            await self._show(interaction, await self._review.next(scope), said=words.GONE)
        else:
            await self._show(interaction, ticket)

    async def _decided(
        self, scope: str, action: str, feedback_id: str, text: str, person: Person
    ) -> Ticket | None:
        match action:
            case "accept":
                return await self._review.accept(scope, feedback_id, actor=person.id)
            case "drop":
                return await self._review.drop(scope, feedback_id, actor=person.id)
            case "edit":
                return await self._review.edit(scope, feedback_id, text, actor=person.id)
        return await self._review.next(scope, after=feedback_id)

    async def _checked(self, interaction: discord.Interaction[Any]) -> str:
        await self._bot.access.check(interaction, "feedback")
        return require_owner(interaction)

    async def _show(
        self, interaction: discord.Interaction[Any], ticket: Ticket | None, *, said: str = ""
    ) -> None:
        if not interaction.response.is_done():
            await interaction.response.defer()
        content = said if ticket else words.NOTHING_TO_REVIEW
        embed = _ticket_embed(ticket) if ticket else None
        view = _ticket_view(ticket) if ticket else None
        await interaction.edit_original_response(content=content, embed=embed, view=view)

    # -- export

    @feedback.command(name="export", description="The votes that may be trained on, as a file")
    @app_commands.describe(format="raw can be imported again; the others are for TRL")
    @admin("feedback")
    async def export(self, interaction: discord.Interaction[Any], format: Form = "raw") -> None:
        """Send the consented rows of this server to the one who asked."""
        scope = require_owner(interaction)
        await acknowledge(interaction)
        share = self._bot.world.settings.privacy.person_share
        content, rows = await self._bot.world.database.run(
            lambda db: _exported(db, scope, format, share)
        )
        if not rows:
            await tell(interaction, words.NOTHING_TO_EXPORT)
        elif len(content) > UPLOAD_BYTES:
            await tell(interaction, words.too_big(len(content) / 1024**2, format, scope))
        else:
            file = discord.File(io.BytesIO(content), f"feedback-{format}.jsonl")
            await tell(interaction, words.exported(rows, format), file=file)


_STYLES = {"accept": discord.ButtonStyle.success, "drop": discord.ButtonStyle.danger}


def _cog(interaction: discord.Interaction[Any]) -> FeedbackCog:
    cog = interaction.client.get_cog(FeedbackCog.__cog_name__)
    if not isinstance(cog, FeedbackCog):
        raise RuntimeError("FeedbackCog is not loaded; connect the bot first")
    return cog


def _exported(db: Database, scope: str, form: Form, share: float) -> tuple[bytes, int]:
    """Return the file's content and how many rows it holds; nothing of it stays on the disk."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "export.jsonl"
        if form == "raw":
            rows = export_raw(db, path, scope=scope)
        else:
            rows = export_trl(db, path, form, scope=scope, person_share=share)
        return path.read_bytes(), rows


def _stats_embed(standing: Standing) -> discord.Embed:
    stats = standing.stats
    embed = discord.Embed(title=words.STATS_TITLE)
    counted = words.kinds(
        up=stats["up"],
        down=stats["down"],
        corrections=stats["correction"],
        choices=stats["preference"],
        again=stats["regenerate"],
    )
    rates = [
        words.liked(name, one["up"], one["up"] + one["down"])
        for name, one in stats["like_rates"].items()
    ]
    reasons = [words.may_not(reason, number) for reason, number in standing.left_out.items()]
    for name, value in (
        ("kinds", counted),
        ("people", str(stats["people"])),
        ("waiting", str(stats["waiting"])),
        ("may_train", str(standing.may_train)),
        ("may_not", "\n".join(reasons)),
        ("liked", "\n".join(rates)[-1024:]),
    ):
        if value:
            embed.add_field(name=words.FIELDS[name], value=value, inline=len(value) < 20)
    return embed


def _ticket_embed(ticket: Ticket) -> discord.Embed:
    row = ticket.row
    feedback = row.feedback
    asked = next((said.content for said in reversed(row.prompt) if said.role == "user"), "")
    said = words.signal(
        feedback.kind,
        excerpt(", ".join(feedback.reasons), 100),
        excerpt(feedback.text or "", QUOTE_CHARS),
    )
    embed = discord.Embed(title=words.REVIEW_TITLE)
    for name, value in (
        ("asked", excerpt(asked, QUOTE_CHARS)),
        ("reply", excerpt(row.reply_text, QUOTE_CHARS)),
        ("signal", said),
    ):
        embed.add_field(name=words.FIELDS[name], value=value or "…", inline=False)
    embed.add_field(name=words.FIELDS["who"], value=_shown(ticket.person))
    embed.add_field(name=words.FIELDS["why"], value=words.FLAGS[ticket.flag])
    return embed.set_footer(text=words.left(ticket.left))


def _shown(person: Person) -> str:
    if person.platform == PLATFORM:
        return f"<@{person.platform_id}>"
    return excerpt(person.display_name or person.platform_id, 100)


def _ticket_view(ticket: Ticket) -> ui.View:
    view = LastingView()
    correction = ticket.row.feedback.kind == "correction"
    for action in ("accept", *(("edit",) if correction else ()), "drop", "skip"):
        view.add_item(ReviewButton(action, ticket.row.feedback.id))
    return view
