"""kill -9 at each step of the loop: what was said to be stored is there, nothing is half-applied.

The tenth point, a migration, is in tests/storage, where the old schemas are.
"""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from bot.world import make_learning, open_database, open_world
from core.manifest import read_manifest, verify_content
from core.records import Run
from core.settings import Settings
from storage.aio import AsyncDatabase
from tests.bot.conftest import tiny_settings
from tests.bot.test_learning import SCOPE, add_votes, tiny_base

ROOT = Path(__file__).parents[2]


def crash(point: str, settings: Settings) -> None:
    """Run the child to its point and see that SIGKILL ended it."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.bot.crash_child",
            point,
            settings.data_dir,
            settings.model.source,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A world in which console@v1 was trained and promoted, then rolled back once; to be copied."""
    import asyncio

    home = tmp_path_factory.mktemp("promoted") / "world"
    settings = tiny_settings(home, tiny_model)

    async def build() -> None:
        async with open_database(settings) as database:
            await database.run(add_votes)
            learning = make_learning(settings, database, tiny_base(settings))
            await learning.retrain(SCOPE, actor="test")

    asyncio.run(build())
    return home


@pytest.fixture
def copied(promoted: Path, tmp_path: Path, tiny_model: Path) -> Settings:
    """A copy of the promoted world."""
    shutil.copytree(promoted, tmp_path / "copy")
    return tiny_settings(tmp_path / "copy", tiny_model)


async def with_votes(settings: Settings) -> None:
    """Fill an empty world with votes."""
    async with open_database(settings) as database:
        await database.run(add_votes)


async def resumed(database: AsyncDatabase, settings: Settings) -> Run:
    """Go on with the one orphaned run, as `thumbtune up` does at start."""
    learning = make_learning(settings, database, tiny_base(settings))
    (orphan,) = await learning.orphans()
    return (await learning.resume(orphan.id, actor="restart")).run


async def test_in_a_reply(settings: Settings) -> None:
    """The finished reply, its vote and the second question are there; the cut reply is marked."""
    crash("reply", settings)
    async with open_world(settings, lambda _: None) as world:
        replies = await world.database.run(lambda db: db.replies.recent(SCOPE, 10))
        turns = await world.database.run(
            lambda db: db.conversations.history(replies[0].conversation_id, limit=10)
        )
        stats = await world.database.run(lambda db: db.feedback.stats(SCOPE))
    with sqlite3.connect(settings.database_path) as rows:
        states = [state for (state,) in rows.execute("SELECT state FROM replies ORDER BY rowid")]
    assert states == ["done", "failed"]
    assert [turn.text for turn in turns if turn.role == "user"] == ["First", "Second"]
    assert stats["up"] == 1


async def test_in_a_vote(settings: Settings) -> None:
    """The stored vote stands; the one that never returned is not there at all."""
    crash("vote", settings)
    async with open_database(settings) as database:
        rows = await database.run(lambda db: db.feedback.rows(SCOPE))
    assert [row.feedback.kind for row in rows] == ["up"]


@pytest.mark.parametrize("point", ["snapshot", "lineage", "training", "report", "publish", "row"])
async def test_in_a_run(settings: Settings, point: str) -> None:
    """No adapter is half-live; the run goes on from where it was and ends promoted; nothing is left
    over.
    """
    await with_votes(settings)
    crash(point, settings)
    async with open_database(settings) as database:
        scope = await database.run(lambda db: db.scopes.ensure(SCOPE))
        assert scope.live is None
        assert await database.run(lambda db: db.adapters.list()) == []
        run = await resumed(database, settings)
        scope = await database.run(lambda db: db.scopes.get(SCOPE))
        lineage = await database.run(lambda db: db.runs.examples(run.id))
    assert run.state == "promoted", run.detail
    assert len(lineage) == run.counts["train_total"] > 0
    assert scope.live == run.adapter
    directory = settings.data_dir / "adapters" / SCOPE
    assert [path.name for path in directory.iterdir()] == [str(run.adapter).split("@")[1]]
    published = next(directory.iterdir())
    verify_content(published, read_manifest(published))
    assert list((settings.data_dir / "runs").glob(".*.tmp")) == []


async def test_an_interrupted_run_names_the_command_to_go_on(settings: Settings) -> None:
    """Where nobody resumes by itself, the run is marked with the command."""
    await with_votes(settings)
    crash("training", settings)
    async with open_database(settings) as database:
        learning = make_learning(settings, database, tiny_base(settings))
        (run,) = await learning.mark_interrupted()
        marked = await database.run(lambda db: db.runs.get(run.id))
        assert marked.state == "interrupted"
        assert f"thumbtune retrain --resume {run.id}" in marked.detail
        assert (await learning.resume(run.id, actor="test")).run.state == "promoted"


async def test_in_a_promotion(copied: Settings) -> None:
    """The pointer stands where it was, and so do the states."""
    async with open_database(copied) as database:
        await database.run(lambda db: db.adapters.rollback(SCOPE, actor="test"))
    crash("promotion", copied)
    async with open_database(copied) as database:
        scope = await database.run(lambda db: db.scopes.get(SCOPE))
        record = await database.run(lambda db: db.adapters.get(f"{SCOPE}@v1"))
    assert (scope.live, record.state) == (None, "retired")


async def test_in_a_decision(copied: Settings) -> None:
    """The trial goes on with its votes, nobody was promoted, and the next start decides it."""
    crash("decision", copied)
    async with open_database(copied) as database:
        scope = await database.run(lambda db: db.scopes.get(SCOPE))
        trial = await database.run(lambda db: db.trials.canary(SCOPE))
    assert (scope.live, scope.canary) == (None, f"{SCOPE}@v1")
    assert trial is not None
    async with open_world(copied, lambda _: None) as world:
        assert await world.registry.speaking(SCOPE) == f"{SCOPE}@v1"
        assert (await world.database.run(lambda db: db.trials.get(trial.id))).state == "better"


async def test_in_a_rollback(copied: Settings) -> None:
    """The adapter that was live is still live, wholly."""
    crash("rollback", copied)
    async with open_world(copied, lambda _: None) as world:
        assert await world.registry.speaking(SCOPE) == f"{SCOPE}@v1"
        record = await world.database.run(lambda db: db.adapters.get(f"{SCOPE}@v1"))
    assert record.state == "live"
