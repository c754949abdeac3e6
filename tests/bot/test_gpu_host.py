"""The whole loop with training on another machine: a bot that dies, stops, comes back, cancels."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.learning import LearningService
from bot.running import Housekeeping, threads_beside_training
from bot.world import open_database, open_world
from core.errors import RunElsewhere
from core.jobs import TRAIN
from core.settings import Settings
from tests.bot.conftest import tiny_settings
from tests.bot.test_crash import ROOT, with_votes
from tests.bot.test_learning import SCOPE, add_votes, tiny_base
from tests.sshd import Box, open_box
from tests.trainer.test_ssh import BRIEF, LOADING, launcher, until_said

KILLED = """
import asyncio, sys
from core.settings import Settings
from tests.bot.crash_child import _retrain, die
settings = Settings.model_validate_json(sys.argv[1])
asyncio.run(_retrain(settings, lambda line: die() if line.message == sys.argv[2] else None))
"""


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    """The other machine."""
    with open_box(tmp_path / "box") as opened:
        yield opened


@pytest.fixture
def settings(box: Box, tmp_path: Path, tiny_model: Path) -> Settings:
    """Settings of a world that trains there."""
    plain = tiny_settings(tmp_path / "world", tiny_model).model_dump()
    there = {"launcher": box.settings(), "ssh_config": box.config}
    return Settings.model_validate({**plain, **there})


async def until_state(database: object, run_id: str, state: str) -> None:
    """Wait until the run's row says so."""
    async with asyncio.timeout(300):
        while (await database.run(lambda db: db.runs.get(run_id))).state != state:  # type: ignore[attr-defined]
            await asyncio.sleep(0.1)


async def test_a_run_elsewhere_survives_a_killed_and_a_stopped_bot(
    box: Box, settings: Settings
) -> None:
    """The bot is killed: its run goes on there; the next one takes it up and is stopped; the third
    takes it up too and ends with its adapter live. One job did it all.
    """
    await with_votes(settings)
    command = [sys.executable, "-c", KILLED, settings.model_dump_json(), LOADING]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: ASYNC221 # nothing else goes on
    assert done.returncode == -signal.SIGKILL, done.stderr
    (process,) = box.processes()
    said: list[str] = []
    async with open_world(settings, lambda _: None) as world:
        (run,) = await world.learning.orphans()
        second = Housekeeping(world, said.append)
        await second.start()
        await until_said(settings.data_dir / run.directory, "asking gpu-box", times=2)
        await second.close()
        await until_state(world.database, run.id, "interrupted")
        assert box.processes() == [process]
        third = Housekeeping(world, said.append)
        await third.start()
        await until_state(world.database, run.id, "promoted")
        await third.close()
        await world.registry.sync()
        assert await world.registry.speaking(SCOPE) == f"{SCOPE}@v1"
    assert said[:2] == [
        f"{run.id} was cut off while training; going on with it",
        f"{run.id} was left on another machine; taking it up",
    ]
    assert box.runs() == []


async def test_a_run_out_of_reach_is_kept_and_can_be_cancelled_later(
    box: Box, settings: Settings
) -> None:
    """Long without a connection it is interrupted, not failed: its directory stays, and a cancel is
    done when the machine answers again.
    """
    async with open_database(settings) as database:
        await database.run(add_votes)
        learning = LearningService(database, settings, tiny_base(settings), launcher(box, BRIEF))
        running = asyncio.create_task(learning.retrain(SCOPE, actor="test"))
        async with asyncio.timeout(300):
            while not box.processes():
                await asyncio.sleep(0.1)
        box.line.cut()
        with pytest.raises(RunElsewhere, match="thumbtune retrain --resume run_"):
            await running
        (run,) = await learning.left_elsewhere()
        await learning.tidy()
        assert (settings.data_dir / run.directory / TRAIN).exists()
        assert len(box.processes()) == 1
        box.line.mend()
        await learning.cancel(run.id, actor="test")
        outcome = await learning.resume(run.id, actor="test")
    assert outcome.run.state == "cancelled"
    assert (box.processes(), box.runs()) == ([], [])
    assert not (settings.data_dir / run.directory / TRAIN).exists()


def test_a_run_elsewhere_takes_no_cores_here(tmp_path: Path, tiny_model: Path) -> None:
    """The engine keeps its threads while a run goes on there."""

    class Selfish:
        shares_cores = False

    settings = tiny_settings(tmp_path, tiny_model)
    many = {"serving": settings.serving.model_copy(update={"threads": 64})}
    here = settings.model_copy(update=many)
    launching = settings.launcher.model_copy(update={"kind": "ssh", "ssh_host": "gpu-box"})
    there = here.model_copy(update={"launcher": launching})
    assert threads_beside_training(there, Selfish()) == 64  # type: ignore[arg-type]
    assert threads_beside_training(here, Selfish()) < 64  # type: ignore[arg-type]
