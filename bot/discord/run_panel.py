"""One training run's message on Discord: begun as an answer, edited as the run goes, ended once.

Invariant: one edit at a time, each showing the newest state, as often as Discord's own answers
allow. Before the answer to an interaction can no longer be edited, the panel goes on in a message
of its own. Does not know who drives the run: it is told, or reads what the run left.
"""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import discord
from discord import ui

from bot.discord.charts import training_chart
from bot.discord.pace import channel_key, webhook_key
from bot.discord.run_cancel import cancel_view
from bot.discord.run_sheet import final_embed, progress_embed
from bot.discord.wording import training as words
from core.errors import ThumbtuneError
from core.generation import BASE
from core.jobs import Progress
from core.records import Run

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot

log = logging.getLogger(__name__)
ANSWER_S = 14 * 60.0
"""How long an interaction's answer is edited; Discord takes edits of it for 15 minutes."""
CHART = "run.png"
Message = discord.Message | discord.PartialMessage


@dataclass(slots=True)
class Shown:
    """The message that is edited now; `until` is when it can be no more, None for never."""

    message: Message
    key: str
    until: float | None = None


def shown_answer(
    interaction: discord.Interaction[Any], message: discord.InteractionMessage, now: float
) -> Shown:
    """Return an interaction's answer as what is edited."""
    key = webhook_key(interaction.application_id, interaction.token)
    return Shown(message, key, now + ANSWER_S)


def shown_message(message: Message) -> Shown:
    """Return a message in a channel as what is edited."""
    return Shown(message, channel_key(message.channel.id))


class RunPanel:
    """One run's message. All methods run on the event loop; `clock` is in seconds, monotonic."""

    def __init__(
        self,
        bot: ThumbtuneBot,
        scope: str,
        shown: Shown,
        *,
        channel: discord.abc.Messageable,
        clock: Callable[[], float],
        run_id: str | None = None,
    ) -> None:
        self._bot = bot
        self._scope = scope
        self._shown: Shown | None = shown
        self._channel = channel
        self._clock = clock
        self._run_id = run_id
        self._progress: list[Progress] = []
        self._drawn = 0
        self._news = asyncio.Event()
        self._ended = False

    # -- told

    def update(self, progress: Progress) -> None:
        """Take a line of progress; it is shown when the edit before has come back."""
        self._progress.append(progress)
        self._news.set()

    def stop(self) -> None:
        """Let `keep` return; what follows is the end."""
        self._ended = True
        self._news.set()

    async def keep(self) -> None:
        """Show the newest state again and again, until `stop`."""
        while not self._ended:
            await self._news.wait()
            self._news.clear()
            if not self._ended:
                await self._remember()
                await self.refresh()

    async def catch_up(self, progress: Sequence[Progress]) -> None:
        """Show what a run left so far, if there is anything new."""
        if len(progress) > len(self._progress):
            self._progress = list(progress)
            await self.refresh()

    # -- shown

    async def refresh(self) -> None:
        """Show the newest state, in a new message where the one before can be edited no more."""
        if self._shown is None:
            return
        if self._shown.until is not None and self._clock() >= self._shown.until:
            await self._move()
            return
        await self._bot.pace.ready(self._shown.key)
        await self._edit(self._embed(), view=self._view(), files=await self._chart())

    async def end(self, run: Run) -> None:
        """Show how the run ended, for good, once who is said to speak does."""
        try:
            await self._bot.world.registry.sync()
        except ThumbtuneError as error:
            log.warning("the end of run %s is shown before its adapter is: %s", run.id, error)
        live = await self._bot.world.database.run(lambda db: db.scopes.get(run.scope).live)
        self._run_id = run.id
        if self._shown and self._shown.until is not None and self._clock() >= self._shown.until:
            await self._move()
        if self._shown is not None:
            await self._bot.pace.ready(self._shown.key)
            await self._edit(final_embed(run, live or BASE), view=None, files=[])

    async def say(self, text: str) -> None:
        """Put a sentence in the place of the progress: there is no run to show."""
        if self._shown is not None:
            await self._shown.message.edit(content=text, embed=None, attachments=[], view=None)

    # -- private

    async def _remember(self) -> None:
        """Find the run's id once it has one, and store where it is shown."""
        if self._run_id is not None:
            return
        runs = await self._bot.world.database.run(lambda db: db.runs.active(self._scope))
        if runs:
            self._run_id = runs[0].id
            await self._store()

    async def _store(self) -> None:
        run_id, shown = self._run_id, self._shown
        if run_id is None or shown is None:
            return
        message = shown.message
        await self._bot.world.database.run(
            lambda db: db.runs.show(run_id, str(message.channel.id), str(message.id))
        )

    async def _move(self) -> None:
        """Go on in a new message, and link it from the old one."""
        before, self._shown = self._shown, None
        view = self._view()
        try:
            sent = await self._channel.send(
                embed=self._embed(), files=await self._chart(again=True), **_with(view)
            )
        except discord.HTTPException as error:
            log.info("a run's progress cannot go on in the channel: %s", error)
            text = words.NO_CHANNEL
        else:
            self._shown = shown_message(sent)
            await self._store()
            text = words.moved(sent.jump_url)
        if before is not None:
            try:
                await before.message.edit(content=text, embed=None, attachments=[], view=None)
            except discord.HTTPException as error:
                log.info("a run's first message could not be changed: %s", error)

    async def _edit(
        self, embed: discord.Embed, *, view: ui.View | None, files: list[discord.File]
    ) -> None:
        if self._shown is None:
            return
        more: dict[str, Any] = {"attachments": files} if files else {}
        try:
            await self._shown.message.edit(content=None, embed=embed, view=view, **more)
        except (discord.NotFound, discord.Forbidden) as error:
            log.info("a run's message is gone: %s", error)
            self._shown = None
        except discord.HTTPException as error:
            log.warning("a run's message was not updated: %s", error)

    def _view(self) -> ui.View | None:
        return cancel_view(self._run_id) if self._run_id else None

    def _embed(self) -> discord.Embed:
        embed = progress_embed(self._progress[-1] if self._progress else None)
        if self._points():
            embed.set_image(url=f"attachment://{CHART}")
        return embed

    def _points(self) -> int:
        return sum(line.loss is not None or line.margin is not None for line in self._progress)

    async def _chart(self, *, again: bool = False) -> list[discord.File]:
        """Draw the course if it has new points; sent again only then."""
        points = self._points()
        if not points or (points == self._drawn and not again):
            return []
        lines = list(self._progress)
        image = await asyncio.to_thread(training_chart, lines, title=words.TITLE)
        self._drawn = points
        return [discord.File(io.BytesIO(image), CHART)]


def _with(view: ui.View | None) -> dict[str, Any]:
    return {"view": view} if view else {}
