"""Telling a server how the trial of a version ended, where its training was shown.

Invariant: what is said has happened already; a line that cannot be posted changes nothing. Where no
training was shown, the line goes to the server's log channel, if it has one.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import discord
from discord.ext import commands

from bot.canary import Decided
from bot.discord.places import PLATFORM, Spot
from bot.discord.versions import liked_text
from bot.discord.wording import adapters as words
from storage.database import Database

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot

log = logging.getLogger(__name__)
_TEXTS = {
    "better": words.decided_better,
    "worse": words.decided_worse,
    "undecided": words.decided_nothing,
}


class CanaryCog(commands.Cog):
    """Telling a server how the trial of a version ended."""

    def __init__(self, bot: ThumbtuneBot) -> None:
        self._bot = bot
        self._stop: Callable[[], None] | None = None

    async def cog_load(self) -> None:
        """Listen for decisions."""
        self._stop = self._bot.world.canary.on_decision(self._tell)

    async def cog_unload(self) -> None:
        """Listen no more."""
        if self._stop:
            self._stop()
            self._stop = None

    async def _tell(self, decided: Decided) -> None:
        trial = decided.standing.trial
        channel_id = await self._bot.world.database.run(
            lambda db: _shown_in(db, trial.scope, trial.candidate)
        )
        channel_id = channel_id or await self._log_channel(trial.scope)
        if not channel_id:
            return
        said = _TEXTS[decided.outcome](
            trial.candidate, trial.reference, liked_text(decided.standing)
        )
        try:
            await self._bot.get_partial_messageable(channel_id).send(said)
        except (discord.HTTPException, OSError) as error:
            log.warning("the end of trial %s could not be told: %s", trial.id, error)

    async def _log_channel(self, scope: str) -> int:
        """Return the log channel of a server with a scope of its own, or 0."""
        with contextlib.suppress(ValueError):
            guild_id = int(scope.removeprefix(f"{PLATFORM}-"))
            return (await self._bot.places.server(Spot(guild_id, 0))).log_channel
        return 0


def _shown_in(db: Database, scope: str, name: str) -> int:
    """Return the channel that a version's run was shown in, or 0."""
    record = next((one for one in db.adapters.list(scope) if one.name == name), None)
    shown = db.runs.shown(record.run_id) if record and record.run_id else None
    return int(shown[0]) if shown else 0
