"""The whole loop on the tiny model: votes to a live adapter, through a real training process."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bot.driver import Outcome
from bot.learning import LearningService
from bot.world import World, make_learning, open_database
from core.basemodel import BaseModel, identify_base
from core.errors import Conflict, NotEnoughData, RunInProgress, TrainingError
from core.generation import Message
from core.jobs import Progress
from core.records import Person
from core.settings import Settings
from storage.aio import AsyncDatabase
from storage.database import Database
from storage.imports import ImportedSignal
from tests.bot.conftest import tiny_settings

SCOPE = "console"


def add_votes(db: Database, count: int = 24) -> None:
    """Six people like short replies and dislike long ones."""
    for index in range(count):
        liked = index % 3 == 0
        db.imports.add(
            ImportedSignal(
                scope=SCOPE,
                user=f"person{index % 6}",
                prompt=(Message("user", f"Question number {index}?"),),
                reply=f"Yes {index}." if liked else f"No, and here is a long story about {index}.",
                kind="up" if liked else "down",
                at=f"2026-01-01T00:00:{index:02}.000000Z",
            )
        )


def tiny_base(settings: Settings) -> BaseModel:
    """The tiny model as a base."""
    return identify_base("tiny", Path(settings.model.source), settings.data_dir)


async def retrain(database: AsyncDatabase, settings: Settings, **options: bool) -> Outcome:
    """Run the whole way with real parts."""
    learning = make_learning(settings, database, tiny_base(settings))
    return await learning.retrain(SCOPE, actor="test", **options)


async def test_votes_become_the_live_adapter(world: World, ada: Person) -> None:
    """Snapshot, training, gate, publication and swap; progress only grows; lineage is kept."""
    await world.database.run(add_votes)
    seen: list[Progress] = []
    outcome = await world.learning.retrain(SCOPE, actor="test", on_progress=seen.append)
    await world.registry.sync()
    assert (outcome.run.state, outcome.run.adapter) == ("promoted", "console@v1")
    assert await world.registry.speaking(SCOPE) == "console@v1"
    fractions = [progress.fraction for progress in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert {"snapshot", "publishing", "done"} < {progress.stage for progress in seen}
    lineage = await world.database.run(lambda db: db.runs.examples(outcome.run.id))
    assert len(lineage) == outcome.run.counts["train_total"]


async def test_a_refusal_leaves_the_pointer_alone(tmp_path: Path, tiny_model: Path) -> None:
    """The gate refuses: the adapter is kept as refused, nobody speaks differently, the table says
    why.
    """
    settings = tiny_settings(tmp_path, tiny_model, min_people=50)
    async with open_database(settings) as database:
        await database.run(add_votes)
        outcome = await retrain(database, settings)
        scope = await database.run(lambda db: db.scopes.get(SCOPE))
        record = await database.run(lambda db: db.adapters.get("console@v1"))
    assert (outcome.run.state, scope.live, record.state) == ("refused", None, "refused")
    assert "more are needed" in record.detail


async def test_force_promotes_and_says_so(tmp_path: Path, tiny_model: Path) -> None:
    """--force flips the pointer in spite of the gate and the detail names it."""
    settings = tiny_settings(tmp_path, tiny_model, min_people=50)
    async with open_database(settings) as database:
        await database.run(add_votes)
        outcome = await retrain(database, settings, force=True)
    assert outcome.run.state == "promoted"
    assert outcome.run.detail.startswith("forced: Refused")


async def test_too_little_data_is_a_refusal_that_says_what_is_missing(
    settings: Settings,
) -> None:
    """Without feedback the run ends refused with a sentence, and no directory is left."""
    async with open_database(settings) as database:
        outcome = await retrain(database, settings)
    assert outcome.run.state == "refused"
    assert "usable examples" in outcome.run.detail
    assert outcome.verdict is None


async def test_a_second_run_is_refused_while_one_is_active(settings: Settings) -> None:
    """One run at a time for a scope."""
    async with open_database(settings) as database:
        await database.run(lambda db: db.scopes.ensure(SCOPE))
        await database.run(
            lambda db: db.runs.create(SCOPE, recipe="auto", owner_pid=1, actor="test")
        )
        with pytest.raises(RunInProgress):
            await retrain(database, settings)


async def test_a_cancelled_run_ends_and_leaves_no_process(settings: Settings) -> None:
    """Cancelling from another connection stops the job and ends the run as cancelled."""
    async with open_database(settings) as database:
        await database.run(lambda db: add_votes(db, count=60))
        learning = make_learning(settings, database, tiny_base(settings))
        running = asyncio.create_task(learning.retrain(SCOPE, actor="test"))
        run_id = await _until_training(database)
        await learning.cancel(run_id, actor="test")
        outcome = await asyncio.wait_for(running, timeout=60)
    assert outcome.run.state == "cancelled"


async def _until_training(database: AsyncDatabase) -> str:
    while True:
        active = await database.run(lambda db: db.runs.active())
        if active and active[0].state == "training":
            return active[0].id
        await asyncio.sleep(0.05)


async def test_a_failing_job_is_told_with_its_reason(settings: Settings) -> None:
    """A base that vanished fails the run, and the message holds what the job said."""
    async with open_database(settings) as database:
        await database.run(add_votes)
        base = tiny_base(settings)
        gone = BaseModel(base.name, Path("/nonexistent/model"), base.sha256)
        learning = make_learning(settings, database, gone)
        with pytest.raises(TrainingError, match="nonexistent"):
            await learning.retrain(SCOPE, actor="test")
        runs = await database.run(lambda db: db.runs.list())
    assert runs[0].state == "failed"
    assert "nonexistent" in runs[0].detail


async def test_training_switched_off_is_said(settings: Settings) -> None:
    """A scope whose training is off refuses with the reason."""
    async with open_database(settings) as database:
        await database.run(lambda db: db.scopes.ensure(SCOPE))
        await database.run(lambda db: db.scopes.set_training(SCOPE, False, "test"))
        with pytest.raises(Conflict, match="training is switched off"):
            await retrain(database, settings)


async def test_a_dry_run_counts_and_writes_nothing(settings: Settings) -> None:
    """The plan tells counts and recipe; no run, no directory."""
    async with open_database(settings) as database:
        await database.run(add_votes)
        learning: LearningService = make_learning(settings, database, tiny_base(settings))
        plan = await learning.plan(SCOPE)
        with pytest.raises(NotEnoughData):
            await learning.plan(SCOPE, "dpo")
        runs = await database.run(lambda db: db.runs.list())
    assert plan.counts()["train_total"] + plan.counts()["held_out_total"] == 24
    assert runs == []
    assert not (settings.data_dir / "runs").exists()
