"""Training looked after from Discord: /retrain and /training.

Owns the runs started here, each a referenced task with its message, and the messages of runs that
went on over a restart. What a run is and does is bot.learning's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import discord
from discord import app_commands
from discord.ext import commands, tasks

from bot.discord.access import admin
from bot.discord.answers import acknowledge, in_time, tell
from bot.discord.places import SHARED_SCOPE, spot_of
from bot.discord.run_cancel import CancelButton, cancel_run, require_owner
from bot.discord.run_panel import RunPanel, shown_answer, shown_message
from bot.discord.run_sheet import history_embed, plan_embed, status_embed
from bot.discord.versions import trial_text
from bot.discord.wording import training as words
from bot.schedule import MAX_VOTES, next_cron, own_votes, set_own_votes
from core.errors import NotEnoughData, RunInProgress, ThumbtuneError
from core.records import ACTIVE_RUN_STATES, Run
from storage.database import Database

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot

log = logging.getLogger(__name__)
WATCH_S = 2.0
"""How often runs that went on over a restart are looked at; edits are paced besides."""
HISTORY = 10
Recipe = Literal["auto", "bon", "sft", "kto", "apo", "dpo"]


class TrainingCog(commands.Cog):
    """Training looked after from Discord: /retrain and /training."""

    training = app_commands.Group(
        name="training",
        description="What is being learnt here, and when",
        guild_only=True,
        default_permissions=discord.Permissions(manage_guild=True),
    )

    def __init__(self, bot: ThumbtuneBot) -> None:
        self._bot = bot
        self._tasks: set[asyncio.Task[None]] = set()
        self._watched: dict[str, RunPanel] = {}
        self._started: set[str] = set()
        self._mended = False

    async def cog_load(self) -> None:
        """Register the button."""
        self._bot.add_dynamic_items(CancelButton)

    async def cog_unload(self) -> None:
        """Stop what was started here; a run is marked as interrupted and goes on after a start."""
        self.watch.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- /retrain

    @app_commands.command(name="retrain", description="Learn now from the votes here")
    @app_commands.describe(
        recipe="How to learn; auto chooses by what there is",
        dry_run="Only show what would be learnt from",
    )
    @app_commands.default_permissions(manage_guild=True)
    @app_commands.guild_only()
    @admin("training")
    async def retrain(
        self, interaction: discord.Interaction[Any], recipe: Recipe = "auto", dry_run: bool = False
    ) -> None:
        """Start a run and show its progress, or only what it would learn from."""
        scope = require_owner(interaction)
        if dry_run:
            await acknowledge(interaction)
            await self._show_plan(interaction, scope, recipe)
            return
        await acknowledge(interaction, publicly=True)
        refusal = await self._refusal(interaction, scope)
        if refusal:
            await interaction.edit_original_response(content=refusal)
            return
        person = await self._bot.access.person(interaction.user.id)
        message = await interaction.original_response()
        clock = asyncio.get_running_loop().time
        panel = RunPanel(
            self._bot,
            scope,
            shown_answer(interaction, message, clock()),
            channel=self._bot.get_partial_messageable(message.channel.id),
            clock=clock,
        )
        await panel.refresh()
        retraining = self._bot.world.learning.retrain(
            scope, actor=person.id, recipe=recipe, on_progress=panel.update
        )
        self._spawn(self._drive(panel, retraining, scope), f"retrain-{scope}")

    async def _show_plan(
        self, interaction: discord.Interaction[Any], scope: str, recipe: Recipe
    ) -> None:
        try:
            plan = await self._bot.world.learning.plan(scope, recipe)
        except NotEnoughData as error:
            said = words.too_little(str(error)) if self._permitted else words.NO_PERMISSION
            await tell(interaction, said)
            return
        await tell(interaction, "", embed=plan_embed(plan, chosen=recipe == "auto"))

    @property
    def _permitted(self) -> bool:
        return bool(self._bot.world.settings.discord.training_permission.strip())

    async def _refusal(self, interaction: discord.Interaction[Any], scope: str) -> str:
        """Return why no run can start here, or ''."""
        world = self._bot.world
        if not world.settings.training.enabled:
            return words.TRAINING_DISABLED
        shared = scope == SHARED_SCOPE
        server = await self._bot.places.server(spot_of(interaction.channel))
        row = await world.database.run(
            lambda db: db.scopes.ensure(scope, training_enabled=shared or server.training)
        )
        if not row.training_enabled:
            return words.SERVER_OFF
        if await world.database.run(lambda db: db.runs.active(scope)):
            return words.RUNNING_ALREADY
        if self._permitted:
            return ""
        rows = await world.database.run(lambda db: db.feedback.rows(scope, consented_only=True))
        return "" if rows else words.NO_PERMISSION

    # -- runs

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drive(self, panel: RunPanel, work: Coroutine[Any, Any, Any], scope: str) -> None:
        """Take a run to its end beside its message, then show how it ended."""
        before = await self._last(scope)
        showing = asyncio.create_task(panel.keep())
        run, said = None, words.BROKEN
        try:
            run = (await work).run
        except RunInProgress:
            said = words.RUNNING_ALREADY
        except (ThumbtuneError, OSError) as error:
            log.warning("a run of %s failed: %s", scope, error)
            run = await self._last(scope)
            if run and before and run.id == before.id and before.state != "interrupted":
                run = None  # it failed before there was one
        finally:
            panel.stop()
            await asyncio.gather(showing, return_exceptions=True)
        if run is None:
            await panel.say(said)
        else:
            await panel.end(run)

    async def _last(self, scope: str) -> Run | None:
        runs = await self._bot.world.database.run(lambda db: db.runs.list(scope, 1))
        return runs[0] if runs else None

    @commands.Cog.listener()
    async def on_shard_ready(self, _shard_id: int) -> None:
        """Follow the runs that are shown somewhere and went on, or can go on, over a restart."""
        if self._mended:
            return
        self._mended = True
        for run, channel_id, message_id in await self._bot.world.database.run(_shown_runs):
            panel = self._panel(run, channel_id, message_id)
            if run.state == "interrupted":
                resuming = self._bot.world.learning.resume(
                    run.id, actor="restart", on_progress=panel.update
                )
                self._spawn(self._drive(panel, resuming, run.scope), f"resume-{run.id}")
            else:
                self._watched[run.id] = panel
        if self._watched:
            self.watch.start()

    def _panel(self, run: Run, channel_id: int, message_id: int) -> RunPanel:
        channel = self._bot.get_partial_messageable(channel_id)
        shown = shown_message(channel.get_partial_message(message_id))
        clock = asyncio.get_running_loop().time
        return RunPanel(self._bot, run.scope, shown, channel=channel, clock=clock, run_id=run.id)

    @tasks.loop(seconds=WATCH_S)
    async def watch(self) -> None:
        """Bring the messages up to date of runs that something else drives."""
        world = self._bot.world
        for run_id, panel in list(self._watched.items()):
            run = await world.database.run(lambda db, one=run_id: db.runs.get(one))  # type: ignore[misc]
            if run.state in ACTIVE_RUN_STATES:
                await panel.catch_up(await asyncio.to_thread(world.learning.progress, run))
            else:
                del self._watched[run_id]
                await panel.end(run)
        if not self._watched:
            self.watch.stop()

    # -- /training

    @training.command(name="status", description="What is being learnt, and what waits")
    @admin("training")
    async def status(self, interaction: discord.Interaction[Any]) -> None:
        """Show what runs, what waits, and when training starts by itself."""
        embed = await in_time(interaction, self._status(interaction))
        await tell(interaction, "", embed=embed)

    async def _status(self, interaction: discord.Interaction[Any]) -> discord.Embed:
        world = self._bot.world
        scope = self._bot.places.scope(interaction.guild_id)
        runs = await world.database.run(lambda db: db.runs.active(scope))
        lines = [await self._running(run, interaction) for run in runs]
        signals, people = await world.database.run(lambda db: db.feedback.waiting(scope))
        trial = await world.canary.standing(scope)
        return status_embed(
            running=lines,
            waiting=words.waiting(signals, people),
            itself=await self._itself(scope),
            trial=trial_text(trial) if trial else "",
        )

    async def _running(self, run: Run, interaction: discord.Interaction[Any]) -> str:
        world = self._bot.world
        progress = await asyncio.to_thread(world.learning.progress, run)
        shown = await world.database.run(lambda db: db.runs.shown(run.id))
        here = f"https://discord.com/channels/{interaction.guild_id}"
        link = f"{here}/{shown[0]}/{shown[1]}" if shown else ""
        last = progress[-1] if progress and run.state == "training" else None
        stage, fraction = (last.stage, last.fraction) if last else (run.state, 0.0)
        return words.running(stage, round(100 * fraction), link)

    async def _itself(self, scope: str) -> str:
        """Say when training starts without anybody asking."""
        settings = self._bot.world.settings.schedule
        own = await self._bot.world.database.run(lambda db: own_votes(db, scope))
        votes = settings.min_votes if own is None else own
        due = next_cron(settings.cron, datetime.now(UTC))
        at = int(due.timestamp()) if due else 0
        return words.by_itself(votes, settings.min_people, cron_at=at)

    @training.command(name="history", description="The last ten training runs")
    @admin("training")
    async def history(self, interaction: discord.Interaction[Any]) -> None:
        """Show the last runs with their figures."""
        scope = self._bot.places.scope(interaction.guild_id)
        listed = self._bot.world.database.run(lambda db: db.runs.list(scope, HISTORY))
        runs = await in_time(interaction, listed)
        if runs:
            await tell(interaction, "", embed=history_embed(runs))
        else:
            await tell(interaction, words.NO_HISTORY)

    @training.command(name="cancel", description="Stop the training run that goes on here")
    @admin("training")
    async def cancel(self, interaction: discord.Interaction[Any]) -> None:
        """Ask for the end of this server's run."""
        await tell(interaction, await in_time(interaction, self._cancel(interaction)))

    async def _cancel(self, interaction: discord.Interaction[Any]) -> str:
        scope = require_owner(interaction)
        runs = await self._bot.world.database.run(lambda db: db.runs.active(scope))
        return await cancel_run(interaction, runs[0].id) if runs else words.NOTHING_RUNS

    @training.command(name="schedule", description="When training starts here by itself")
    @app_commands.describe(votes="Train once so many new signals wait; 0 never")
    @admin("training")
    async def schedule(
        self,
        interaction: discord.Interaction[Any],
        votes: app_commands.Range[int, 0, MAX_VOTES] | None = None,
    ) -> None:
        """Show when training starts by itself, or change after how many signals."""
        await tell(interaction, await in_time(interaction, self._schedule(interaction, votes)))

    async def _schedule(self, interaction: discord.Interaction[Any], votes: int | None) -> str:
        scope = require_owner(interaction)
        if votes is None:
            return words.starts(await self._itself(scope))
        person = await self._bot.access.person(interaction.user.id)
        await self._bot.world.database.run(
            lambda db: set_own_votes(db, scope, votes, actor=person.id)
        )
        return words.schedule_set(votes, self._bot.world.settings.schedule.min_people)


def _shown_runs(db: Database) -> list[tuple[Run, int, int]]:
    """Return the runs that are not at an end and where they are shown."""
    shown = [(run, db.runs.shown(run.id)) for run in db.runs.unfinished()]
    return [(run, int(where[0]), int(where[1])) for run, where in shown if where]
