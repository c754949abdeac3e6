"""Runs on a real Ray cluster: they come home, and outlive the bot, a node and every process."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.basemodel import identify_base
from core.errors import TrainingError
from core.files import process_alive, sha256_file
from core.jobs import ADAPTER, PROGRESS, TRAIN, Example, read_progress
from core.report import read_report
from core.sections import LauncherSettings
from core.settings import Settings
from tests.tiny import make_tiny_adapter, make_tiny_model
from tests.trainer.ray_cluster import RayCluster, running_cluster
from tests.trainer.rows import APO, SFT, correction, job_spec, vote
from trainer.job import EXIT_STOPPED, main
from trainer.launchers.base import Handle
from trainer.launchers.choose import make_launcher
from trainer.launchers.ray import RayLauncher
from trainer.snapshot import write_job

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install '.[ray]'"
)
QUICK = ("--no-evaluation", "--checkpoint-seconds", "0.3")
STEPS = 200
MIDDLE = APO.model_copy(update={"epochs": STEPS / 4, "batch_size": 4})
LONG = APO.model_copy(update={"epochs": 4000.0, "batch_size": 2})
WEIGHTS_FILE = "adapter_model.safetensors"
WEIGHTS = f"{ADAPTER}/{WEIGHTS_FILE}"


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """A head and two nodes with a GPU each."""
    with running_cluster() as running:
        yield running


@pytest.fixture(scope="module")
def alone(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of what MIDDLE makes where nothing disturbs it."""
    directory = job(tmp_path_factory.mktemp("alone") / "run_alone", tiny_model, MIDDLE)
    assert main([str(directory), *QUICK]) == 0
    return sha256_file(directory / WEIGHTS)


def job(directory: Path, base: Path, *stages: object, **more: object) -> Path:
    """Write a small job directory; the run is named as the directory is."""
    examples: list[Example] = [vote(i % 2 == 0, prompt=f"Q{i}", at=i) for i in range(12)]
    examples += [correction(prompt=f"C{i}", at=20 + i) for i in range(4)]
    sha256 = identify_base("tiny", base, directory.parent).sha256
    named = {"run_id": f"{directory.name}_{time.time_ns()}", "base_sha256": sha256, **more}
    write_job(directory, job_spec(base, *stages, **named), examples, examples[:2])  # type: ignore[arg-type]
    return directory


def settings(address: str, **more: object) -> LauncherSettings:
    return LauncherSettings.model_validate(
        {"kind": "ray", "ray_address": address, "threads": 1, **more}
    )


def launcher(cluster: RayCluster, **more: object) -> RayLauncher:
    return RayLauncher(settings(cluster.address, **more), arguments=QUICK)


async def submit(launcher: RayLauncher, directory: Path, timeout_s: float = 300) -> Handle:
    return await launcher.submit(directory, threads=1, nice=0, timeout_s=timeout_s)


async def until(what: Callable[[], object], seconds: float = 120) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, f"not within {seconds} s"
        await asyncio.sleep(0.1)


def steps(directory: Path) -> list[int]:
    return [line.step for line in read_progress(directory) if line.step]


def messages(directory: Path) -> str:
    return "\n".join(line.message for line in read_progress(directory))


async def nothing_left(cluster: RayCluster) -> None:
    """Nobody holds anything and no file of a run lies on a node."""
    await until(lambda: cluster.ask("free") == {"CPU": 6.0, "GPU": 2.0}, 30)
    await until(lambda: not cluster.ask("actors") and not cluster.leftovers, 30)


def actor(cluster: RayCluster, kind: str) -> dict[str, object]:
    return next(found for found in cluster.ask("actors") if kind in str(found["class"]))


async def test_a_run_goes_to_the_cluster_and_comes_home(
    cluster: RayCluster, tiny_model: Path, tmp_path: Path, alone: str
) -> None:
    """From outside, by ray://: progress arrives line by line, the adapter is the one made here."""
    directory = job(tmp_path / "run", tiny_model, MIDDLE)
    outside = RayLauncher(settings(cluster.client), arguments=QUICK)
    handle = await submit(outside, directory)
    seen = [line async for line in outside.watch(handle)]
    assert await outside.fetch(handle) == 0
    assert [line.step for line in seen if line.step] == list(range(1, STEPS + 1))
    assert seen == read_progress(directory)
    assert sha256_file(directory / WEIGHTS) == alone
    assert read_report(directory).adapter == "console@v1"
    assert "on node" in (directory / "job.log").read_text()
    await nothing_left(cluster)


async def test_a_bot_that_died_finds_its_run_again(
    cluster: RayCluster, tiny_model: Path, tmp_path: Path, alone: str
) -> None:
    """kill -9 of the bridge, a bot that lets go, a new bot: one run, each line of it once."""
    directory = job(tmp_path / "run", tiny_model, MIDDLE)
    first = launcher(cluster)
    handle = await submit(first, directory)
    os.kill(int(handle.id.removeprefix("ray-")), signal.SIGKILL)
    await until(lambda: steps(directory))  # another bridge was built
    await first.release(handle)
    with pytest.raises(asyncio.CancelledError):
        await first.fetch(handle)
    second = launcher(cluster)
    assert await second.fetch(await submit(second, directory)) == 0
    assert steps(directory) == list(range(1, STEPS + 1))
    assert sha256_file(directory / WEIGHTS) == alone
    await nothing_left(cluster)


async def test_a_lost_node_is_gone_on_from_elsewhere(
    cluster: RayCluster, tiny_model: Path, tmp_path: Path, alone: str
) -> None:
    """The node dies without a word: the other goes on from a checkpoint, to the same adapter."""
    directory = job(tmp_path / "run", tiny_model, MIDDLE)
    ours = launcher(cluster)
    handle = await submit(ours, directory)
    await until(lambda: steps(directory) and cluster.kept)
    before = len(steps(directory))
    cluster.ask("remove", node=actor(cluster, "Worker")["node"])
    assert await ours.fetch(handle) == 0
    cluster.ask("add")
    assert "was lost; going on on another" in messages(directory)
    assert steps(directory)[before:][0] > 1
    assert steps(directory)[-1] == STEPS
    assert sha256_file(directory / WEIGHTS) == alone
    await nothing_left(cluster)


@pytest.mark.parametrize("kind", ["Worker", "Supervisor"])
async def test_no_process_over_there_is_needed_to_live(
    cluster: RayCluster, tiny_model: Path, tmp_path: Path, alone: str, kind: str
) -> None:
    """kill -9 of the worker or the supervisor leaves no job behind, and the run goes on."""
    directory = job(tmp_path / "run", tiny_model, MIDDLE)
    ours = launcher(cluster)
    handle = await submit(ours, directory)
    await until(lambda: steps(directory) and cluster.kept)
    os.kill(int(str(actor(cluster, kind)["pid"])), signal.SIGKILL)
    assert await ours.fetch(handle) == 0
    assert steps(directory)[-1] == STEPS
    assert sha256_file(directory / WEIGHTS) == alone
    await nothing_left(cluster)
    assert not jobs_on(cluster)


def jobs_on(cluster: RayCluster) -> list[int]:
    """Processes that work in a job directory of the cluster."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if b"trainer.job" in command and str(cluster.home).encode() in command:
            found.append(int(path.parent.name))
    return found


def live_of(process: int) -> Path:
    """Where a job was told that the live adapter lies."""
    command = Path(f"/proc/{process}/cmdline").read_text(encoding="utf-8").split("\0")
    return Path(command[command.index("--live") + 1])


async def test_cancel_frees_everything(
    cluster: RayCluster, tiny_model: Path, tmp_path: Path
) -> None:
    """A run on the nodes' own base, beside a live adapter: when cancel returns, the job is dead,
    its place is free and its files are gone.
    """
    live = make_tiny_adapter(tmp_path / "live", tiny_model, seed=2)
    directory = job(tmp_path / "run", tiny_model, LONG, live_path=str(live), live_name="console@v0")
    ours = launcher(cluster, base=str(tiny_model))
    handle = await submit(ours, directory)
    await until(lambda: steps(directory))
    [process] = jobs_on(cluster)
    there = live_of(process)
    assert sha256_file(there / WEIGHTS_FILE) == sha256_file(live / WEIGHTS_FILE)
    await ours.cancel(handle)
    assert not process_alive(process)
    assert await ours.fetch(handle) == EXIT_STOPPED
    assert not (directory / ADAPTER).exists()
    await nothing_left(cluster)


async def test_a_job_that_fails_is_told_and_not_tried_again(
    cluster: RayCluster, tiny_model: Path, tmp_path: Path
) -> None:
    """Rubbish in the input ends the run with the job's code and the last lines of its log."""
    directory = job(tmp_path / "run", tiny_model, SFT)
    (directory / TRAIN).write_text("{not json\n", encoding="utf-8")
    ours = launcher(cluster)
    handle = await submit(ours, directory)
    with pytest.raises(TrainingError, match=r"exit code 2; the last lines[\s\S]*failed: .*line 1"):
        await ours.fetch(handle)
    assert "going on" not in messages(directory)
    await nothing_left(cluster)


async def test_a_run_that_takes_too_long_is_stopped_over_there(
    cluster: RayCluster, tiny_model: Path, tmp_path: Path
) -> None:
    """The cluster holds the time limit, which a bot's restart does not begin anew."""
    directory = job(tmp_path / "run", tiny_model, LONG)
    first = launcher(cluster)
    await first.release(await submit(first, directory, timeout_s=3))
    second = launcher(cluster)
    handle = await submit(second, directory, timeout_s=3000)
    with pytest.raises(TrainingError, match="took longer than 0 minutes"):
        await second.fetch(handle)
    await nothing_left(cluster)


async def test_another_base_is_never_trained_on(
    cluster: RayCluster, tiny_model: Path, tmp_path: Path
) -> None:
    """A base over there with other weights is refused by its hash, before anything trains."""
    other = make_tiny_model(tmp_path / "other", seed=1)
    directory = job(tmp_path / "run", tiny_model, SFT)
    wrong = launcher(cluster, base=str(other))
    with pytest.raises(TrainingError, match="not the base model that the bot speaks with"):
        await wrong.fetch(await submit(wrong, directory))
    assert not steps(directory)
    await nothing_left(cluster)


async def test_what_a_cluster_has_not_is_said_at_once(
    cluster: RayCluster, tiny_model: Path, tmp_path: Path
) -> None:
    """A run that no node could hold is refused, with what there is; nothing is left."""
    directory = job(tmp_path / "run", tiny_model, SFT)
    with pytest.raises(TrainingError, match=r"has 4 GPU, 1 CPU core; it has .*: 1 GPU, 2 CPU"):
        await submit(launcher(cluster, ray_gpus=4.0), directory)
    with pytest.raises(TrainingError, match=r"and 9000 GB of memory; it has"):
        await submit(launcher(cluster, ray_memory_gb=9000.0), directory)
    await nothing_left(cluster)


async def test_a_look_says_what_the_cluster_has(cluster: RayCluster) -> None:
    """Nodes, GPUs and cores, and what a run asks of one of them; or what is wrong."""
    said = await launcher(cluster).look()
    assert "2 GPU" in said
    assert said.endswith("a run asks for 1 GPU, 1 CPU core")
    with pytest.raises(TrainingError, match=r"has 4 GPU, 1 CPU core; it has"):
        await launcher(cluster, ray_gpus=4.0).look()


async def test_no_cluster_is_said_in_seconds(tiny_model: Path, tmp_path: Path) -> None:
    """Nobody at the address, or no address at all: a sentence, and nothing in the progress."""
    directory = job(tmp_path / "run", tiny_model, SFT)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        with pytest.raises(TrainingError, match="no Ray cluster answers at"):
            await submit(RayLauncher(settings(address)), directory)
        with pytest.raises(TrainingError, match="no Ray cluster answers at"):
            await RayLauncher(settings(address)).look()
    with pytest.raises(TrainingError, match="expected a host and a port"):
        await submit(RayLauncher(settings("head-node")), directory)
    assert not (directory / PROGRESS).exists()


def test_the_settings_choose_it(tmp_path: Path) -> None:
    """launcher.kind = "ray" makes it, without loading Ray."""
    chosen = Settings(launcher=settings("head-node:6379"), data_dir=tmp_path)
    assert isinstance(make_launcher(chosen), RayLauncher)
