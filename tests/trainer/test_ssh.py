"""The ssh launcher against a real sshd: runs, lost lines, dead bots, second submits, refusals."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.basemodel import identify_base
from core.errors import RunElsewhere, TrainingError
from core.files import sha256_file
from core.jobs import ADAPTER, JOB, LOG, REPORT, elsewhere_file, read_progress
from core.report import read_report
from core.sections import LauncherSettings
from tests.sshd import HOST, Box, open_box
from tests.tiny import make_tiny_model, publish_tiny_adapter
from tests.trainer.rows import APO, SFT
from tests.trainer.test_job import LONG, QUICK
from tests.trainer.test_job import job as job_on
from trainer.job import EXIT_STOPPED, main
from trainer.launchers.base import Handle
from trainer.launchers.connection import Address
from trainer.launchers.far import RESULTS
from trainer.launchers.patience import Patience
from trainer.launchers.ssh import SshLauncher
from trainer.launchers.ssh_check import describe_host

LONGER = APO.model_copy(update={"epochs": 10.0})
LOADING = "loading libraries and the base model"
WEIGHTS = "adapter/adapter_model.safetensors"
PATIENT = Patience(first_s=300.0, run_s=300.0, stop_s=300.0, longest_pause_s=0.5)
BRIEF = Patience(first_s=1.5, run_s=1.5, stop_s=1.5, longest_pause_s=0.5)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    """The other machine."""
    with open_box(tmp_path / "box") as opened:
        yield opened


def launcher(box: Box, patience: Patience = PATIENT, **settings: object) -> SshLauncher:
    """Return a launcher that goes there, as another process would make it."""
    chosen = LauncherSettings.model_validate(box.settings(**settings))
    return SshLauncher(chosen, config=box.config, arguments=QUICK, patience=patience)


def job(directory: Path, base: Path, *stages: object, **more: object) -> Path:
    """Write a small job directory that knows its base."""
    sha256 = identify_base("tiny", base, directory.parent).sha256
    return job_on(directory, base, *stages, base_sha256=sha256, **more)


async def submit(there: SshLauncher, directory: Path, timeout_s: float = 300) -> Handle:
    return await there.submit(directory, threads=1, nice=0, timeout_s=timeout_s)


async def until_said(directory: Path, message: str, times: int = 1) -> None:
    """Wait until the progress here says so."""
    async with asyncio.timeout(300):
        while sum(line.message == message for line in read_progress(directory)) < times:
            await asyncio.sleep(0.05)


async def until_step(directory: Path, step: int = 1) -> None:
    """Wait until the job's progress has come this far here."""
    async with asyncio.timeout(300):
        while not any(line.step >= step for line in read_progress(directory)):
            await asyncio.sleep(0.05)


async def kept_part(box: Box) -> Path:
    """Return the file that arrived in part, once rsync there has noticed and put it by."""
    async with asyncio.timeout(60):
        while not (found := list(box.directory.glob("base/*/.rsync-partial/*"))):
            await asyncio.sleep(0.05)
    return found[0]


def run_there(box: Box, directory: Path) -> Path:
    """Make the directory there in which this job runs."""
    run = box.directory / "runs" / f"{directory.name}-{sha256_file(directory / JOB)[:12]}"
    run.mkdir(parents=True)
    return run


def place(box: Box, run: Path) -> str:
    """Return what is kept here of a job that lies there."""
    return json.dumps({"host": HOST, "directory": str(box.directory), "name": run.name})


def finished_there(box: Box, directory: Path, base: Path) -> Path:
    """Write a job here, and there what a run leaves that ended while nobody looked."""
    job(directory, base, SFT)
    run = run_there(box, directory)
    (run / "job" / ADAPTER).mkdir(parents=True)
    for number, result in enumerate((*RESULTS, LOG)):
        (run / "job" / result).write_text(f"result {number} " * 1000)
    (run / "began.json").write_text(json.dumps({"at": 0.0}))
    (run / "exit.json").write_text(json.dumps({"code": 0, "timed_out": False}))
    return run


async def result(there: SshLauncher, directory: Path) -> int:
    return await there.fetch(await submit(there, directory))


def step_lines(directory: Path) -> list[int]:
    return [line.step for line in read_progress(directory) if line.step]


async def test_a_run_there_is_the_run_here(box: Box, tiny_model: Path, tmp_path: Path) -> None:
    """Code, base, live adapter and data go there; the adapter that comes back has the SHA-256 of
    one trained here; the words there are gone, code and base stay.
    """
    live = publish_tiny_adapter(tmp_path / "live", tiny_model, "console@v1", seed=1)
    spec = {"live_path": str(live), "live_name": "console@v1"}
    directory = job(tmp_path / "run_1", tiny_model, SFT, **spec)
    shutil.copytree(directory, tmp_path / "here")
    there = launcher(box)
    handle = await submit(there, directory)
    seen = [line async for line in there.watch(handle)]
    assert await there.fetch(handle) == 0
    assert seen == read_progress(directory)
    assert seen[-1].fraction == 1.0
    assert main([str(tmp_path / "here"), *QUICK]) == 0
    assert sha256_file(directory / WEIGHTS) == sha256_file(tmp_path / "here" / WEIGHTS)
    assert read_report(directory).train_counts["liked"] == 6
    assert box.runs() == []
    assert not elsewhere_file(directory).exists()
    left = {path.name for path in box.directory.iterdir()}
    assert left == {"code", "base", "base-hashes.json", "runs"}


async def test_a_cut_line_is_waited_out_and_another_bot_finds_the_run(
    box: Box, tiny_model: Path, tmp_path: Path
) -> None:
    """The cut is told; after it two new launchers at once follow the very process that was
    started, through another sshd; every line of its progress comes once.
    """
    directory = job(tmp_path / "run_1", tiny_model, APO)
    first = launcher(box)
    handle = await submit(first, directory)
    await until_said(directory, LOADING)
    (process,) = box.processes()
    box.line.cut()
    await until_said(directory, f"no connection to {HOST}; trying again")
    await first.release(handle)
    box.down()
    box.up()
    box.line.mend()
    copy = shutil.copytree(directory, tmp_path / "copy" / "run_1")
    second, third = launcher(box), launcher(box)
    handles = await submit(second, directory), await submit(third, copy)
    await until_step(directory)
    assert box.processes() == [process]
    await third.release(handles[1])
    assert await second.fetch(handles[0]) == 0
    assert step_lines(directory) == list(range(1, 9))
    assert sum(line.message == LOADING for line in read_progress(directory)) == 1


async def test_two_submits_at_once_start_one_job_and_a_cancel_ends_it(
    box: Box, tiny_model: Path, tmp_path: Path
) -> None:
    """Both send, one starts, both follow; a cancel leaves no process and no word there."""
    directory = job(tmp_path / "run_1", tiny_model, LONG)
    copy = shutil.copytree(directory, tmp_path / "copy" / "run_1")
    both = launcher(box), launcher(box)
    handles = await submit(both[0], directory), await submit(both[1], copy)
    for each in (directory, copy):
        await until_said(each, LOADING)
    (process,) = box.processes()
    await both[1].release(handles[1])
    await both[0].cancel(handles[0])
    assert await both[0].fetch(handles[0]) == EXIT_STOPPED
    await both[0].cancel(handles[0])
    assert not process.is_running()
    assert box.runs() == []
    assert (directory / LOG).exists()
    assert not elsewhere_file(directory).exists()


async def test_a_job_that_died_there_goes_on_from_its_checkpoint(
    box: Box, tiny_model: Path, tmp_path: Path
) -> None:
    """Supervisor and job killed, as a power cut does it: the job is started again and resumes."""
    directory = job(tmp_path / "run_1", tiny_model, LONGER)
    there = launcher(box)
    handle = await submit(there, directory)
    await until_step(directory, 8)
    (process,) = box.processes()
    for each in (process.parent(), process):
        assert each is not None
        each.kill()
    assert await there.fetch(handle) == 0
    messages = [line.message for line in read_progress(directory)]
    assert "it was cut off there; going on from its last checkpoint" in messages
    again = step_lines(directory)[step_lines(directory).index(8) + 1 :]
    assert 1 not in again
    assert again[-1] == 40


async def test_a_failed_job_says_why_and_is_cleared_away(
    box: Box, tiny_model: Path, tmp_path: Path
) -> None:
    """The exit code and the last lines of the log there; nothing stays there."""
    directory = job(tmp_path / "run_1", tiny_model, SFT)
    with (directory / "train.jsonl").open("a") as file:
        file.write("{not json\n")
    with pytest.raises(TrainingError, match=r"exit code 2[\s\S]*line 17"):
        await result(launcher(box), directory)
    assert box.runs() == []


async def test_the_time_limit_counts_from_the_first_start(
    box: Box, tiny_model: Path, tmp_path: Path
) -> None:
    """A run that began long ago is stopped there at once, though nobody here remembers."""
    directory = job(tmp_path / "run_1", tiny_model, LONG)
    run = run_there(box, directory)
    (run / "began.json").write_text(json.dumps({"at": 0.0}))
    there = launcher(box)
    with pytest.raises(TrainingError, match=r"took longer than 5 minutes"):
        await result(there, directory)
    assert box.processes() == []


async def test_what_ended_while_nobody_looked_is_brought(
    box: Box, tiny_model: Path, tmp_path: Path
) -> None:
    """The next submit brings results, starts nothing and clears away; then it needs no machine."""
    there = finished_there(box, tmp_path / "run_1", tiny_model)
    sums = {name: sha256_file(there / "job" / name) for name in (*RESULTS, LOG)}
    directory = tmp_path / "run_1"
    assert await result(launcher(box), directory) == 0
    assert {name: sha256_file(directory / name) for name in sums} == sums
    assert not (directory / ".incoming").exists()
    assert box.runs() == []


async def test_a_damaged_transfer_is_not_taken(
    box: Box, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What arrives otherwise than it left is fetched once more and then refused; the results stay
    there for another try.
    """
    there = finished_there(box, tmp_path / "run_1", tiny_model)
    directory = tmp_path / "run_1"
    real = shutil.which("rsync")
    wrapper = tmp_path / "bin" / "rsync"
    wrapper.parent.mkdir()
    incoming = directory / ".incoming" / WEIGHTS
    wrapper.write_text(f'#!/bin/sh\n{real} "$@"\ncode=$?\n: > {incoming}\nexit $code\n')
    wrapper.chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setenv("PATH", str(wrapper.parent), prepend=":")
        elsewhere_file(directory).write_text(place(box, there))
        with pytest.raises(RunElsewhere, match=r"damaged twice[\s\S]*--resume run_1"):
            await result(launcher(box), directory)
    assert not (directory / ADAPTER).exists()
    assert not (directory / REPORT).exists()
    assert await result(launcher(box), directory) == 0


async def test_a_base_cut_in_the_middle_is_sent_on(
    box: Box, tiny_model: Path, tmp_path: Path
) -> None:
    """The part that arrived is kept there, the rest is sent when the line is back; the share is
    told.
    """
    big = make_tiny_model(tmp_path / "big", hidden=512, layers=4)
    directory = job(tmp_path / "run_1", big, SFT)
    there = launcher(box)
    box.line.cut_after = 5_000_000
    handle = await submit(there, directory)
    await until_said(directory, f"no connection to {HOST}; trying again")
    partial = await kept_part(box)
    assert partial.stat().st_size > 1_000_000
    await there.release(handle)
    box.line.mend()
    there = launcher(box)
    handle = await submit(there, directory)
    await until_said(directory, "sending the data, 100 %")
    assert any("sending the base model, " in line.message for line in read_progress(directory))
    await there.cancel(handle)


async def test_the_base_is_proven_there_before_anything_trains(
    box: Box, tiny_model: Path, tmp_path: Path
) -> None:
    """Another model under launcher.base is refused by its SHA-256, and a directory without one."""
    other = make_tiny_model(tmp_path / "other", seed=5)
    for base, said in ((other, "SHA-256 "), (tmp_path / "none", "no base model here")):
        directory = job(tmp_path / f"run_{base.name}", tiny_model, SFT)
        there = launcher(box, base=str(base))
        handle = await submit(there, directory)
        with pytest.raises(TrainingError, match=f"another base model .*{said}.*launcher.base"):
            await there.fetch(handle)
        await there.cancel(handle)
    assert box.runs() == []
    assert not (box.directory / "base").exists()


async def test_a_machine_that_is_away_is_said_and_nothing_is_left(
    box: Box, tiny_model: Path, tmp_path: Path
) -> None:
    """At the first submit a few tries, then an error; there is nothing to cancel."""
    box.line.cut()
    directory = job(tmp_path / "run_1", tiny_model, SFT)
    there = launcher(box, BRIEF)
    handle = await submit(there, directory)
    with pytest.raises(TrainingError, match=r"gpu-box: no connection .*refused") as caught:
        await there.fetch(handle)
    assert not isinstance(caught.value, RunElsewhere)
    assert any("trying again" in line.message for line in read_progress(directory))
    await there.cancel(handle)
    assert not elsewhere_file(directory).exists()


async def test_a_machine_that_goes_away_leaves_the_run_to_be_taken_up(
    box: Box, tiny_model: Path, tmp_path: Path
) -> None:
    """Long without a connection: the command to go on is told; so it is when it cannot be
    cancelled; when it is back the run is stopped, though its words were forgotten here meanwhile.
    """
    directory = job(tmp_path / "run_1", tiny_model, LONG)
    there = launcher(box, BRIEF)
    handle = await submit(there, directory)
    await until_said(directory, LOADING)
    box.line.cut()
    with pytest.raises(RunElsewhere, match=r"goes on there\. .*thumbtune retrain --resume run_1"):
        [line async for line in there.watch(handle)]
    with pytest.raises(RunElsewhere, match=r"may go on there\. To stop it .*--resume run_1"):
        await there.cancel(handle)
    assert len(box.processes()) == 1
    box.line.mend()
    shutil.rmtree(directory)
    await there.cancel(handle)
    assert not directory.exists()
    assert box.processes() == []
    assert box.runs() == []


async def test_words_that_could_not_be_cleared_away_go_at_the_next_contact(
    box: Box, tiny_model: Path, tmp_path: Path
) -> None:
    """A run whose words were deleted here while it was interrupted is deleted there by the next
    run.
    """
    left = finished_there(box, tmp_path / "run_1", tiny_model)
    elsewhere_file(tmp_path / "run_1").write_text(place(box, left))
    shutil.rmtree(tmp_path / "run_1")
    finished_there(box, tmp_path / "run_2", tiny_model)
    assert await result(launcher(box), tmp_path / "run_2") == 0
    assert box.runs() == []
    assert not elsewhere_file(tmp_path / "run_1").exists()


def python_there(box: Box, arguments: str = "", path: str = "$PATH") -> str:
    """Make an interpreter there that lacks something."""
    script = box.home / "python"
    script.write_text(f'#!/bin/sh\nPATH="{path}" exec {sys.executable} {arguments} "$@"\n')
    script.chmod(0o755)
    return str(script)


async def test_a_machine_that_lacks_something_is_told_before_anything_is_sent(
    box: Box, tiny_model: Path, tmp_path: Path
) -> None:
    """Packages and rsync, by name."""
    directory = job(tmp_path / "run_1", tiny_model, SFT)
    lacking = {
        "its Python lacks torch, transformers": {"arguments": "-S"},
        "rsync is not installed there": {"path": "/nowhere"},
    }
    for said, what in lacking.items():
        there = launcher(box, ssh_python=python_there(box, **what))
        with pytest.raises(TrainingError, match=said):
            await result(there, directory)
    assert not box.directory.exists()


async def test_the_doctor_says_what_there_is(box: Box) -> None:
    """Versions, GPU and room, or the reason why nothing could run."""
    address = Address(HOST, str(box.directory), sys.executable, box.config)
    said = await describe_host(address, "auto")
    assert re.search(r"gpu-box by ssh: Python 3.*, torch .*, trl .*, rsync; .*GB free", said)
    box.line.cut()
    with pytest.raises(TrainingError, match="no connection"):
        await describe_host(address, "auto")


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ("changed", "its host key is not the one that is known here"),
        ("unknown", "its host key is not known here. Connect once by hand"),
        ("refused", "it does not accept a key of this user"),
        ("name", "no host of this name was found"),
        ("python", "python9 was not found there"),
    ],
)
async def test_what_ssh_refuses_is_said_with_what_to_do(
    mistake: str, said: str, box: Box, tiny_model: Path, tmp_path: Path
) -> None:
    """At once, without a second try, and without a word having left this machine."""
    settings = {}
    if mistake == "changed":
        box.trust(box.home / "user.pub")
    elif mistake == "unknown":
        (box.home / "known").write_text("")
    elif mistake == "refused":
        (box.home / "authorized").write_text("")
    elif mistake == "name":
        settings = {"ssh_host": "no-such-host.invalid"}
    else:
        settings = {"ssh_python": "python9"}
    directory = job(tmp_path / "run_1", tiny_model, SFT)
    with pytest.raises(TrainingError, match=said):
        await result(launcher(box, **settings), directory)
    assert box.runs() == []
    assert not any("trying again" in line.message for line in read_progress(directory))
