"""Drive one training run: a state machine whose every step can be repeated after a crash.

A snapshot directory published whole, a job that goes on from its checkpoint, a verdict that is a
pure function of the report, an adapter directory published whole, and one transaction that adds its
row, ends the run and flips the pointer. Does not know who asked, nor how the engine follows the
pointer (bot.registry).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from bot.runfiles import RunFiles
from core.basemodel import BaseModel
from core.errors import NotEnoughData, RunElsewhere, ThumbtuneError
from core.files import sweep_temporary
from core.jobs import EVAL, JOB, TRAIN, JobSpec, Progress, read_examples, read_spec
from core.manifest import adapter_name, parse_adapter_name
from core.records import AdapterRecord, AdapterState, Run, RunState, utc_now
from core.report import read_report
from core.settings import Settings
from storage.aio import AsyncDatabase
from storage.database import Database
from trainer.gate import Verdict, judge
from trainer.launchers.base import Handle, Launcher
from trainer.plan import TrainingPlan, example_counts, plan_training
from trainer.publish import publish_adapter
from trainer.snapshot import dataset_sha256, feedback_ids, write_job

log = logging.getLogger(__name__)
CANCEL_POLL_S = 0.5
JOB_SHARE = 0.98
"""The job's part of a run's progress; the rest is the verdict and the publication."""
OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `verdict` is None when it never came to the gate."""

    run: Run
    verdict: Verdict | None


async def plan_scope(
    database: AsyncDatabase, settings: Settings, scope: str, recipe: str
) -> TrainingPlan:
    """Say what a run of the scope would learn from. Raises NotEnoughData or InvalidInput."""
    rows = await database.run(lambda db: db.feedback.rows(scope))
    return await asyncio.to_thread(plan_training, rows, settings, recipe)


class RunDriver:
    """Drives runs, one at a time or several. All methods run on the event loop."""

    def __init__(
        self, database: AsyncDatabase, settings: Settings, base: BaseModel, launcher: Launcher
    ) -> None:
        self._database = database
        self._settings = settings
        self._base = base
        self._launcher = launcher
        self._files = RunFiles(settings.data_dir)

    async def end(self, run: Run, state: RunState, detail: str) -> Run:
        """End a run; unless it may go on later, the copies of people's words go with it."""
        log.info("run %s %s: %s", run.id, state, detail)
        ended = await self._database.run(lambda db: db.runs.advance(run.id, state, detail=detail))
        if state != "interrupted":
            await asyncio.to_thread(self._files.remove_copies, self._files.job(run))
        return ended

    async def drive(self, run: Run, actor: str, on_progress: OnProgress) -> Outcome:
        """Take a run through every step that is not done yet; raises what made it fail."""
        try:
            await self._snapshot(run, on_progress)
            await self._train(run, on_progress)
            return await self._publish(run, actor, on_progress)
        except NotEnoughData as error:
            return Outcome(await self.end(run, "refused", str(error)), None)
        except _Cancelled:
            return Outcome(await self.end(run, "cancelled", "cancelled as asked"), None)
        except asyncio.CancelledError:
            here = self._settings.runs_here
            what = "stopped" if here else "followed no more, but it goes on where it is"
            detail = f"{what}; go on with: thumbtune retrain --resume {run.id}"
            await asyncio.shield(self.end(run, "interrupted", detail))
            raise
        except RunElsewhere as error:
            await self.end(run, "interrupted", str(error))
            raise
        except (ThumbtuneError, OSError) as error:
            await self.end(run, "failed", str(error))
            raise

    async def _snapshot(self, run: Run, on_progress: OnProgress) -> None:
        """Freeze data and recipe as a job directory, unless that was done before a crash."""
        directory = self._files.job(run)
        await self._advance(run, "snapshot")
        on_progress(_note("snapshot", 0.0, "choosing what to learn from"))
        sweep_temporary(directory.parent)
        left_out: dict[str, int] = {}
        if not (directory / JOB).exists():
            plan = await plan_scope(self._database, self._settings, run.scope, run.recipe)
            spec = await self._spec(run, plan)
            await asyncio.to_thread(write_job, directory, spec, plan.train, plan.held_out)
            left_out = plan.left_out
        await self._database.run(lambda db: _store_snapshot(db, run.id, directory, left_out))

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
            gpus=max(1, training.gpus),
            sharding=training.sharding,
            report_to=training.report_to,
            sample_max_tokens=min(96, self._settings.chat.max_tokens),
            created_at=utc_now(),
        )

    async def _train(self, run: Run, on_progress: OnProgress) -> None:
        await self._advance(run, "training")
        training = self._settings.training
        handle = await self._launcher.submit(
            self._files.job(run),
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
        except (asyncio.CancelledError, RunElsewhere):
            await asyncio.shield(self._launcher.release(handle))
            raise
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
            await self._launcher.fetch(handle)
            await telling
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    async def _until_cancelled(self, run: Run) -> None:
        while not (await self._database.run(lambda db: db.runs.get(run.id))).cancel_requested:
            await asyncio.sleep(CANCEL_POLL_S)

    async def _publish(self, run: Run, actor: str, on_progress: OnProgress) -> Outcome:
        """Judge, publish the directory, then one transaction for row, run and pointer."""
        verdict = await self._judge(run)
        on_progress(_note("publishing", 0.99, verdict.summary))
        promote = verdict.accepted or run.force
        forced = promote and not verdict.accepted
        detail = f"forced: {verdict.summary}" if forced else verdict.summary
        share = 0.0 if run.force else self._settings.canary.share
        record = await asyncio.to_thread(
            self._publish_directory, run, "candidate" if promote else "refused", detail
        )
        ended = await self._database.run(
            lambda db: db.runs.publish(
                run.id,
                record,
                verdict_state=_end_of(promote=promote, share=share),
                promote=promote,
                actor=actor,
                detail=detail,
                share=share,
            )
        )
        await asyncio.to_thread(self._files.remove_copies, self._files.job(run))
        on_progress(_note("done", 1.0, detail))
        return Outcome(ended, verdict)

    async def _judge(self, run: Run) -> Verdict:
        """Judge the report and keep both with the run."""
        await self._advance(run, "judging")
        report = read_report(self._files.job(run))
        verdict = judge(report, self._settings.gate)
        kept = {"report": report.model_dump(), "verdict": asdict(verdict)}
        await self._database.run(lambda db: db.runs.advance(run.id, "publishing", report=kept))
        return verdict

    def _publish_directory(self, run: Run, state: AdapterState, detail: str) -> AdapterRecord:
        """Publish the adapter's files, unless that was done before a crash; return their row."""
        spec = read_spec(self._files.job(run))
        target = self._files.adapter(spec.adapter)
        sweep_temporary(target.parent)
        manifest = publish_adapter(
            self._files.job(run),
            target,
            name=spec.adapter,
            base_model=spec.base_model,
            base_sha256=spec.base_sha256,
            run_id=run.id,
            recipe=spec.recipe,
            created_at=spec.created_at,
        )
        scope, version = parse_adapter_name(spec.adapter)
        return AdapterRecord(
            name=spec.adapter,
            scope=scope,
            version=version,
            base_sha256=spec.base_sha256,
            run_id=run.id,
            directory=self._files.adapter_home(spec.adapter),
            sha256=manifest.sha256,
            state=state,
            detail=detail,
            created_at=spec.created_at,
        )

    async def _advance(self, run: Run, state: RunState) -> None:
        await self._database.run(lambda db: db.runs.advance(run.id, state))


def _end_of(*, promote: bool, share: float) -> Literal["promoted", "canary", "refused"]:
    if not promote:
        return "refused"
    return "canary" if share else "promoted"


def _live_adapter(db: Database, scope: str) -> AdapterRecord | None:
    name = db.scopes.ensure(scope).live
    return db.adapters.get(name) if name else None


def _store_snapshot(db: Database, run_id: str, directory: Path, left_out: dict[str, int]) -> None:
    """Store what a run learns from, as its directory says, in one transaction. Idempotent."""
    spec = read_spec(directory)
    train, held_out = (list(read_examples(directory / name)) for name in (TRAIN, EVAL))
    with db.transaction():
        db.runs.advance(
            run_id,
            "snapshot",
            adapter=spec.adapter,
            counts={"recipe": spec.recipe, **example_counts(train, held_out, left_out)},
            dataset_sha256=dataset_sha256(directory),
        )
        db.runs.set_examples(run_id, feedback_ids(train))


class _Cancelled(Exception):
    """The run was asked to stop."""


def _note(stage: str, fraction: float, message: str) -> Progress:
    return Progress(at=utc_now(), stage=stage, step=0, steps=0, fraction=fraction, message=message)
