"""Learning: training runs asked for, looked at, gone on with and cancelled. Knows no face.

Whoever starts a run drives it (bot.driver); one run at a time for each scope, which the database
holds.
"""

from __future__ import annotations

import asyncio
import os

from bot.driver import OnProgress, Outcome, RunDriver, plan_scope
from bot.runfiles import RunFiles
from core.basemodel import BaseModel
from core.errors import Conflict
from core.files import process_alive
from core.jobs import Progress, read_progress
from core.records import Run
from core.settings import Settings
from storage.aio import AsyncDatabase
from trainer.launchers.base import Launcher
from trainer.plan import TrainingPlan


def quiet(_: Progress) -> None:
    """Take progress and say nothing."""


class LearningService:
    """Training runs of every scope. All methods run on the event loop."""

    def __init__(
        self, database: AsyncDatabase, settings: Settings, base: BaseModel, launcher: Launcher
    ) -> None:
        self._database = database
        self._settings = settings
        self._driver = RunDriver(database, settings, base, launcher)
        self._files = RunFiles(settings.data_dir)

    async def plan(self, scope: str, recipe: str | None = None) -> TrainingPlan:
        """Say what a run would learn from, without starting one. Raises NotEnoughData."""
        chosen = recipe or self._settings.training.recipe
        return await plan_scope(self._database, self._settings, scope, chosen)

    async def retrain(
        self,
        scope: str,
        *,
        actor: str,
        recipe: str | None = None,
        force: bool = False,
        on_progress: OnProgress = quiet,
    ) -> Outcome:
        """Run the whole way: snapshot, training, gate, publication, pointer flip.

        Where canaries are on (`canary.share`), an accepted adapter goes on trial first. `force`
        promotes at once, also what the gate refused (the verdict is kept and says so). Raises
        RunInProgress if the scope has an active run, TrainingError if the job failed.
        """
        await self._check_enabled(scope)
        run = await self._database.run(
            lambda db: db.runs.create(
                scope,
                recipe=recipe or self._settings.training.recipe,
                owner_pid=os.getpid(),
                actor=actor,
                force=force,
            )
        )
        return await self._driver.drive(run, actor, on_progress)

    async def resume(self, run_id: str, *, actor: str, on_progress: OnProgress = quiet) -> Outcome:
        """Go on with a run whose process died, from its last whole step.

        Raises Conflict if another living process drives it or it has ended.
        """
        run = await self._database.run(lambda db: db.runs.take_over(run_id, os.getpid()))
        return await self._driver.drive(run, actor, on_progress)

    async def orphans(self) -> list[Run]:
        """Return active runs whose process is gone."""
        active = await self._database.run(lambda db: db.runs.active())
        return [run for run in active if run.owner_pid is None or not _driven(run)]

    async def left_elsewhere(self) -> list[Run]:
        """Return interrupted runs that lie on another machine, where they may have gone on, unless
        their scope has a newer one that is active.
        """
        if self._settings.runs_here:
            return []
        busy = {run.scope for run in await self._database.run(lambda db: db.runs.active())}
        unfinished = await self._database.run(lambda db: db.runs.unfinished())
        return [
            run
            for run in unfinished
            if run.state == "interrupted"
            and run.scope not in busy
            and self._files.lies_elsewhere(run)
        ]

    async def mark_interrupted(self) -> list[Run]:
        """Mark the runs of dead processes, with the command to go on; return them."""
        orphans = await self.orphans()
        for run in orphans:
            await self._driver.end(
                run,
                "interrupted",
                f"its process died; go on with: thumbtune retrain --resume {run.id}",
            )
        return orphans

    async def tidy(self) -> None:
        """Delete what runs that ended in a crash's moment left of people's words."""
        there = self._files.jobs()  # listed before asking: a run has its row before its directory
        unfinished = await self._database.run(lambda db: db.runs.unfinished())
        keep = {self._files.job(run) for run in unfinished}
        for directory in set(there) - keep:
            await asyncio.to_thread(self._files.remove_copies, directory)

    async def cancel(self, run_id: str, *, actor: str) -> None:
        """Ask the process that drives the run to stop it; what it learnt so far is dropped."""
        await self._database.run(lambda db: db.runs.request_cancel(run_id, actor))

    def progress(self, run: Run) -> list[Progress]:
        """Return the progress lines of a run so far."""
        return read_progress(self._files.job(run))

    async def _check_enabled(self, scope: str) -> None:
        row = await self._database.run(lambda db: db.scopes.ensure(scope))
        if not self._settings.training.enabled:
            raise Conflict("training is switched off; set training.enabled = true in the settings")
        if not row.training_enabled:
            raise Conflict(f"training is switched off for the scope {scope}")


def _driven(run: Run) -> bool:
    return run.owner_pid is not None and process_alive(run.owner_pid)
