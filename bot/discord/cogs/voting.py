"""Votes, reasons and corrections by button and form.

Invariant: whoever presses is answered within a second and alone; a vote never posts a message. A
correction that may not be stored yet is held in memory for a while and nowhere else. Every button
and form carries its reply's id, so all of them work after a restart.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import discord
from discord import ui
from discord.ext import commands

from bot.discord.answers import FORM_S, guarded, in_time, show_form, tell
from bot.discord.ballots import BUTTONS, FORM, correction_form, opt_in_view, vote_view
from bot.discord.forms import sent
from bot.discord.places import spot_of
from bot.discord.wording import votes as words
from bot.feedback import NeedsConsent, NotKept
from bot.privacy import opt_in
from core.errors import Conflict, NotFound, NotRemembered
from core.records import Person

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot

DRAFT_S = 900.0
"""How long a correction may wait in memory for its writer's consent."""
DRAFTS = 100
_UP = {None: words.UP, "up": words.UP_AGAIN, "down": words.UP_CHANGED}
_DOWN = {None: words.DOWN, "down": words.DOWN_AGAIN, "up": words.DOWN_CHANGED}


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the one who pressed is told, and what they can press next."""

    text: str
    view: ui.View | None = None


class Drafts:
    """Corrections that wait for consent, by person and reply; each is dropped after DRAFT_S."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], tuple[str, asyncio.TimerHandle]] = {}

    def put(self, person_id: str, reply_id: str, text: str) -> None:
        """Hold a text; where there is no room the oldest goes."""
        self.take(person_id, reply_id)
        while len(self._held) >= DRAFTS:
            self.take(*next(iter(self._held)))
        expiry = asyncio.get_running_loop().call_later(DRAFT_S, self.take, person_id, reply_id)
        self._held[person_id, reply_id] = text, expiry

    def take(self, person_id: str, reply_id: str) -> str | None:
        """Return a text and hold it no longer; None if it is not there."""
        text, expiry = self._held.pop((person_id, reply_id), (None, None))
        if expiry is not None:
            expiry.cancel()
        return text

    def forget_person(self, person_id: str) -> None:
        """Drop what this person wrote."""
        for key in [held for held in self._held if held[0] == person_id]:
            self.take(*key)

    def clear(self) -> None:
        """Drop everything."""
        for key in list(self._held):
            self.take(*key)


class VotingCog(commands.Cog):
    """Votes, reasons and corrections. `vote` and `edit` are called by a reply's buttons.

    `drafts` are corrections that wait for their writer's consent.
    """

    def __init__(self, bot: ThumbtuneBot) -> None:
        self._bot = bot
        self._feedback = bot.world.feedback
        self.drafts = Drafts()

    async def cog_load(self) -> None:
        """Register the buttons."""
        self._bot.add_dynamic_items(*BUTTONS)

    async def cog_unload(self) -> None:
        """Drop what waits for consent."""
        self.drafts.clear()

    # -- votes

    async def vote(
        self, interaction: discord.Interaction[Any], reply_id: str, kind: Literal["up", "down"]
    ) -> None:
        """Count a press of 👍 or 👎 and say so."""
        await _say(interaction, await in_time(interaction, self._vote(interaction, reply_id, kind)))

    async def give_reason(
        self, interaction: discord.Interaction[Any], reply_id: str, reason: str
    ) -> None:
        """Add a reason to the person's 👎, or take it off, and show what is kept."""
        work = self._give_reason(interaction, reply_id, reason)
        await _revise(interaction, await in_time(interaction, work))

    async def take_back(self, interaction: discord.Interaction[Any], reply_id: str) -> None:
        """Withdraw the person's vote."""
        await _revise(
            interaction, await in_time(interaction, self._take_back(interaction, reply_id))
        )

    async def _vote(
        self, interaction: discord.Interaction[Any], reply_id: str, kind: Literal["up", "down"]
    ) -> _Answer:
        if await self._bot.access.blocked(interaction.user.id, interaction.channel):
            return _Answer(words.BLOCKED)
        person = await self._bot.access.person(interaction.user.id)
        before = await self._feedback.vote_of(reply_id, person.id)
        store = self._feedback.up if kind == "up" else self._feedback.down
        try:
            vote = await store(reply_id, person.id)
        except NotFound:
            return _Answer(words.GONE)
        except Conflict:
            return _Answer(words.STILL_WRITING)
        said = (_UP if kind == "up" else _DOWN)[before.kind if before else None]
        lines = (
            (said, words.CONSENT_HINT) if await self._undecided(interaction, person) else (said,)
        )
        return _Answer("\n".join(lines), vote_view(reply_id, kind, vote.reasons))

    async def _give_reason(
        self, interaction: discord.Interaction[Any], reply_id: str, reason: str
    ) -> _Answer:
        if await self._bot.access.blocked(interaction.user.id, interaction.channel):
            return _Answer(words.BLOCKED)
        person = await self._bot.access.person(interaction.user.id)
        try:
            vote = await self._feedback.toggle_tag(reply_id, person.id, reason)
        except NotFound:
            return _Answer(words.GONE)
        except Conflict:
            return _Answer(words.NO_DOWN)
        view = vote_view(reply_id, "down", vote.reasons)
        return _Answer(words.reasons_kept(vote.reasons), view)

    async def _take_back(self, interaction: discord.Interaction[Any], reply_id: str) -> _Answer:
        person = await self._bot.access.person(interaction.user.id)
        there = await self._feedback.withdraw(reply_id, person.id)
        return _Answer(words.TAKEN_BACK if there else words.NOTHING_TO_TAKE_BACK)

    async def _undecided(self, interaction: discord.Interaction[Any], person: Person) -> bool:
        """Say whether opting in would change anything here and the person never decided."""
        return person.consent == "unknown" and not await self._why_untrained(interaction)

    async def _why_untrained(self, interaction: discord.Interaction[Any]) -> str:
        """Return why nothing written here can be kept, whoever agrees; '' if it can."""
        if not self._bot.world.settings.discord.training_permission.strip():
            return words.NOT_KEPT_NO_PERMISSION
        server = await self._bot.places.server(spot_of(interaction.channel))
        return "" if server.training else words.NOT_KEPT_TRAINING_OFF

    # -- corrections

    async def edit(self, interaction: discord.Interaction[Any], reply_id: str) -> None:
        """Open the form for a correction, or say why there can be none.

        The form must be the first answer, so nothing slow stands before it.
        """
        form = self._form(interaction, reply_id)
        answer = await in_time(interaction, form, patience_s=FORM_S)
        if isinstance(answer, ui.Modal):
            await show_form(interaction, answer)
        else:
            await tell(interaction, answer)

    @commands.Cog.listener()
    @guarded
    async def on_interaction(self, interaction: discord.Interaction[Any]) -> None:
        """Take a correction's form, whether or not it was opened before a restart."""
        if form := sent(interaction, FORM):
            match, text = form
            work = self._correct(interaction, match["reply"], text)
            await _say(interaction, await in_time(interaction, work))

    async def opt_in(self, interaction: discord.Interaction[Any], reply_id: str) -> None:
        """Store the person's consent and the correction that waited for it."""
        await _revise(interaction, await in_time(interaction, self._opt_in(interaction, reply_id)))

    async def _form(self, interaction: discord.Interaction[Any], reply_id: str) -> ui.Modal | str:
        refusal = await self._why_no_correction(interaction)
        try:
            reply = await self._bot.world.chat.recall(reply_id)
        except NotRemembered:
            return refusal or words.NOT_KEPT_CONSENT
        except NotFound:
            return words.GONE
        if reply.state != "done":
            return words.STILL_WRITING_EDIT
        if refusal or not reply.kept:
            return refusal or words.NOT_KEPT_CONSENT
        return correction_form(reply_id, reply.text)

    async def _why_no_correction(self, interaction: discord.Interaction[Any]) -> str:
        """Return why this person can correct nothing here, whatever the reply; '' if they can."""
        if await self._bot.access.blocked(interaction.user.id, interaction.channel):
            return words.BLOCKED
        return await self._why_untrained(interaction)

    async def _correct(
        self, interaction: discord.Interaction[Any], reply_id: str, text: str
    ) -> _Answer:
        if refusal := await self._why_no_correction(interaction):
            return _Answer(refusal)
        person = await self._bot.access.person(interaction.user.id)
        try:
            await self._feedback.correct(reply_id, person.id, text)
        except NeedsConsent:
            self.drafts.put(person.id, reply_id, text)
            return _Answer(words.NEEDS_CONSENT, opt_in_view(reply_id))
        except NotKept:
            return _Answer(words.NOT_KEPT_CONSENT)
        except NotFound:
            return _Answer(words.GONE)
        except Conflict:
            return _Answer(words.STILL_WRITING_EDIT)
        return _Answer(words.CORRECTED)

    async def _opt_in(self, interaction: discord.Interaction[Any], reply_id: str) -> _Answer:
        person = await self._bot.access.person(interaction.user.id)
        text = self.drafts.take(person.id, reply_id)
        if text is None:
            return _Answer(words.DRAFT_GONE)
        if refusal := await self._why_no_correction(interaction):
            return _Answer(refusal)
        await opt_in(self._bot.world.database, person.id, from_message=interaction.id)
        answer = await self._correct(interaction, reply_id, text)
        return _Answer(words.OPTED_IN) if answer.text == words.CORRECTED else answer


async def _say(interaction: discord.Interaction[Any], answer: _Answer) -> None:
    await tell(interaction, answer.text, view=answer.view or discord.utils.MISSING)


async def _revise(interaction: discord.Interaction[Any], answer: _Answer) -> None:
    """Put an answer in the place of the one whose button was pressed."""
    if interaction.response.is_done():
        await _say(interaction, answer)
    else:
        await interaction.response.edit_message(content=answer.text, view=answer.view)
