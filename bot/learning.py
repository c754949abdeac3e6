"""Learning: one training run from the feedback in the database to a live (or refused) adapter.

A run is a state machine whose every step can be repeated after a crash: a snapshot directory
published whole, a job that goes on from its checkpoint, a verdict that is a pure function of the
report, an adapter directory published whole, and one transaction that adds its row, ends the run
and flips the pointer. Does not know how the engine follows the pointer (see bot.registry) nor who
asked.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from core.basemodel import BaseModel
from core.errors import Conflict, NotEnoughData, ThumbtuneError
from core.files import process_alive, sweep_temporary
from core.jobs import JOB, LOG, PROGRESS, JobSpec, Progress, read_progress, read_spec
from core.manifest import adapter_name, parse_adapter_name
from core.records import AdapterRecord, Run, RunState, utc_now
from core.report import read_report
from core.settings import Settings
from storage.aio import AsyncDatabase
from storage.database import Database
from trainer.gate import Verdict, judge
from trainer.launch import Handle, Launcher
from trainer.plan import TrainingPlan, plan_training
from trainer.publish import publish_adapter
from trainer.snapshot import Snapshot, write_job

log = logging.getLogger(__name__)
CANCEL_POLL_S = 0.5
_KEPT = {JOB, PROGRESS, LOG}
JOB_SHARE = 0.98
"""The job's part of a run's progress; the rest is the verdict and the publication."""
OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `verdict` is None when it never came to the gate."""

    run: Run
    verdict: Verdict | None


def quiet(_: Progress) -> None:
    """Take progress and say nothing."""


class LearningService:
    """Training runs of every scope. All methods run on the event loop."""

    def __init__(
        self, database: AsyncDatabase, settings: Settings, base: BaseModel, launcher: Launcher
    ) -> None:
        self._database = database
        self._settings = settings
        self._base = base
        self._launcher = launcher

    # -- asking

    async def plan(self, scope: str, recipe: str | None = None) -> TrainingPlan:
        """Say what a run would learn from, without starting one. Raises NotEnoughData."""
        rows = await self._database.run(lambda db: db.feedback.rows(scope))
        return await asyncio.to_thread(
            plan_training, rows, self._settings, recipe or self._settings.training.recipe
        )

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

        `force` promotes what the gate refused (the verdict is kept and says so). Raises
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
        return await self._drive(run, actor, on_progress)

    async def resume(self, run_id: str, *, actor: str, on_progress: OnProgress = quiet) -> Outcome:
        """Go on with a run whose process died, from its last whole step.

        Raises Conflict if another living process drives it or it has ended.
        """
        run = await self._database.run(lambda db: db.runs.take_over(run_id, os.getpid()))
        return await self._drive(run, actor, on_progress)

    async def orphans(self) -> list[Run]:
        """Return active runs whose process is gone, and interrupted ones that can go on."""
        active = await self._database.run(lambda db: db.runs.active())
        return [run for run in active if run.owner_pid is None or not _driven(run)]

    async def mark_interrupted(self) -> list[Run]:
        """Mark the runs of dead processes, with the command to go on; return them."""
        orphans = await self.orphans()
        for run in orphans:
            await self._end(
                run,
                "interrupted",
                f"its process died; go on with: thumbtune retrain --resume {run.id}",
            )
        return orphans

    async def tidy(self) -> None:
        """Delete what runs that ended in a crash's moment left of people's words."""
        home = self._settings.data_dir / "runs"
        # listed before asking: a run has its row before its directory
        there = list(home.iterdir()) if home.exists() else []
        unfinished = await self._database.run(lambda db: db.runs.unfinished())
        keep = {self._directory(run) for run in unfinished}
        for directory in there:
            if directory not in keep and directory.is_dir():
                await asyncio.to_thread(_remove_copies, directory)

    async def cancel(self, run_id: str, *, actor: str) -> None:
        """Ask the process that drives the run to stop it; what it learnt so far is dropped."""
        await self._database.run(lambda db: db.runs.request_cancel(run_id, actor))

    def progress(self, run: Run) -> list[Progress]:
        """Return the progress lines of a run so far."""
        return read_progress(self._settings.data_dir / run.directory)

    # -- driving

    async def _drive(self, run: Run, actor: str, on_progress: OnProgress) -> Outcome:
        try:
            await self._snapshot(run, on_progress)
            await self._train(run, on_progress)
            return await self._publish(run, actor, on_progress)
        except NotEnoughData as error:
            return Outcome(await self._end(run, "refused", str(error)), None)
        except _Cancelled:
            return Outcome(await self._end(run, "cancelled", "cancelled as asked"), None)
        except asyncio.CancelledError:
            await asyncio.shield(
                self._end(
                    run, "interrupted", f"stopped; go on with: thumbtune retrain --resume {run.id}"
                )
            )
            raise
        except (ThumbtuneError, OSError) as error:
            await self._end(run, "failed", str(error))
            raise

    async def _snapshot(self, run: Run, on_progress: OnProgress) -> None:
        """Freeze data and recipe as a job directory, unless that was done before a crash."""
        directory = self._directory(run)
        await self._advance(run, "snapshot")
        on_progress(_note("snapshot", 0.0, "choosing what to learn from"))
        sweep_temporary(directory.parent)
        if (directory / JOB).exists():
            return
        plan = await self.plan(run.scope, run.recipe)
        spec = await self._spec(run, plan)
        written = await asyncio.to_thread(write_job, directory, spec, plan.train, plan.held_out)
        await self._database.run(lambda db: _store_snapshot(db, run.id, spec, plan, written))

    async def _spec(self, run: Run, plan: TrainingPlan) -> JobSpec:
        version = await self._database.run(lambda db: db.adapters.next_version(run.scope))
        live = await self._database.run(lambda db: _live_adapter(db, run.scope))
        training = self._settings.training
        return JobSpec(
            run_id=run.id,
            adapter=adapter_name(run.scope, version),
            base_path=str(self._base.path.resolve()),
            base_model=self._base.name,
            base_sha256=self._base.sha256,
            live_path=str((self._settings.data_dir / live.directory).resolve()) if live else None,
            live_name=live.name if live else None,
            recipe=plan.recipe.name,
            why=plan.recipe.why,
            stages=list(plan.recipe.stages),
            lora_rank=training.lora_rank,
            lora_alpha=training.lora_alpha,
            max_length=training.max_length,
            seed=training.seed,
            threads=self._settings.training_threads,
            device=self._settings.model.device,
            dtype=self._settings.model.dtype,
            load_in_4bit=training.load_in_4bit,
            report_to=training.report_to,
            sample_max_tokens=min(96, self._settings.chat.max_tokens),
            created_at=utc_now(),
        )

    async def _train(self, run: Run, on_progress: OnProgress) -> None:
        await self._advance(run, "training")
        training = self._settings.training
        handle = await self._launcher.submit(
            self._directory(run),
            threads=self._settings.training_threads,
            nice=training.nice,
            timeout_s=60 * training.timeout_minutes,
        )
        watching = asyncio.create_task(self._watch(handle, on_progress))
        stopping = asyncio.create_task(self._until_cancelled(run))
        try:
            await asyncio.wait({watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done() and not watching.done():
                stopping.result()
                raise _Cancelled
            watching.result()
        except BaseException:
            await asyncio.shield(self._launcher.cancel(handle))
            raise
        finally:
            for task in (watching, stopping):
                task.cancel()
            await asyncio.gather(watching, stopping, return_exceptions=True)

    async def _watch(self, handle: Handle, on_progress: OnProgress) -> None:
        """Tell the progress until the job has ended well; the wait holds the time limit."""

        async def tell() -> None:
            async for progress in self._launcher.watch(handle):
                share = JOB_SHARE * progress.fraction
                on_progress(progress.model_copy(update={"fraction": share}))

        telling = asyncio.create_task(tell())
        try:
            await self._launcher.wait(handle)
            await telling
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    async def _until_cancelled(self, run: Run) -> None:
        while not (await self._database.run(lambda db: db.runs.get(run.id))).cancel_requested:
            await asyncio.sleep(CANCEL_POLL_S)

    async def _publish(self, run: Run, actor: str, on_progress: OnProgress) -> Outcome:
        """Judge, publish the directory, then one transaction for row, run and pointer."""
        directory = self._directory(run)
        await self._advance(run, "judging")
        spec = read_spec(directory)
        report = read_report(directory)
        verdict = judge(report, self._settings.gate)
        kept = {"report": report.model_dump(), "verdict": asdict(verdict)}
        await self._database.run(lambda db: db.runs.advance(run.id, "publishing", report=kept))
        on_progress(_note("publishing", 0.99, verdict.summary))
        home = self._adapter_directory(spec.adapter)
        target = self._settings.data_dir / home
        sweep_temporary(target.parent) if target.parent.exists() else None
        created_at = spec.created_at
        manifest = await asyncio.to_thread(
            publish_adapter,
            directory,
            target,
            name=spec.adapter,
            base_model=spec.base_model,
            base_sha256=spec.base_sha256,
            run_id=run.id,
            recipe=spec.recipe,
            created_at=created_at,
        )
        scope, version = parse_adapter_name(spec.adapter)
        promote = verdict.accepted or run.force
        detail = (
            verdict.summary if verdict.accepted or not run.force else f"forced: {verdict.summary}"
        )
        record = AdapterRecord(
            name=spec.adapter,
            scope=scope,
            version=version,
            base_sha256=spec.base_sha256,
            run_id=run.id,
            directory=home,
            sha256=manifest.sha256,
            state="candidate" if promote else "refused",
            detail=detail,
            created_at=created_at,
        )
        ended = await self._database.run(
            lambda db: db.runs.publish(
                run.id,
                record,
                verdict_state="promoted" if promote else "refused",
                promote=promote,
                actor=actor,
                detail=detail,
            )
        )
        await asyncio.to_thread(_remove_copies, directory)
        on_progress(_note("done", 1.0, detail))
        return Outcome(ended, verdict)

    # -- small things

    async def _check_enabled(self, scope: str) -> None:
        row = await self._database.run(lambda db: db.scopes.ensure(scope))
        if not self._settings.training.enabled:
            raise Conflict("training is switched off; set training.enabled = true in the settings")
        if not row.training_enabled:
            raise Conflict(f"training is switched off for the scope {scope}")

    async def _advance(self, run: Run, state: RunState) -> None:
        await self._database.run(lambda db: db.runs.advance(run.id, state))

    async def _end(self, run: Run, state: RunState, detail: str) -> Run:
        log.info("run %s %s: %s", run.id, state, detail)
        if state != "interrupted":
            await asyncio.to_thread(_remove_copies, self._directory(run))
        return await self._database.run(lambda db: db.runs.advance(run.id, state, detail=detail))

    def _directory(self, run: Run) -> Path:
        return self._settings.data_dir / run.directory

    def _adapter_directory(self, name: str) -> str:
        scope, version = parse_adapter_name(name)
        return f"adapters/{scope}/v{version}"


def _remove_copies(directory: Path) -> None:
    """Delete what a finished run need not keep: people's words, checkpoints, the copied adapter."""
    for path in directory.iterdir() if directory.exists() else ():
        if path.name in _KEPT:
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _live_adapter(db: Database, scope: str) -> AdapterRecord | None:
    name = db.scopes.ensure(scope).live
    return db.adapters.get(name) if name else None


def _store_snapshot(
    db: Database, run_id: str, spec: JobSpec, plan: TrainingPlan, written: Snapshot
) -> None:
    """Store what a run learns from, in one transaction."""
    with db.transaction():
        db.runs.advance(
            run_id,
            "snapshot",
            adapter=spec.adapter,
            counts={"recipe": plan.recipe.name, **plan.counts()},
            dataset_sha256=written.dataset_sha256,
        )
        db.runs.set_examples(run_id, written.train_feedback)


class _Cancelled(Exception):
    """The run was asked to stop."""


def _driven(run: Run) -> bool:
    return run.owner_pid is not None and process_alive(run.owner_pid)


def _note(stage: str, fraction: float, message: str) -> Progress:
    return Progress(at=utc_now(), stage=stage, step=0, steps=0, fraction=fraction, message=message)
