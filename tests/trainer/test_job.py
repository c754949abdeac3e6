"""The job as a process: it finishes, survives any death, stops cleanly, says what is wrong."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.errors import TrainingError
from core.jobs import ADAPTER, TRAIN, Example, read_progress
from core.report import read_report
from tests.trainer.rows import APO, SFT, correction, job_spec, vote
from trainer.job import POOLS, Here, _set_threads, main
from trainer.launchers.base import Handle, job_environment
from trainer.launchers.local import EXIT_STOPPED, LocalLauncher
from trainer.snapshot import dataset_sha256, write_job

AUTOGROUP = Path("/proc/self/autogroup")
LONG = APO.model_copy(update={"epochs": 400.0, "batch_size": 2})
QUICK = ("--no-evaluation", "--checkpoint-seconds", "0")


def job(directory: Path, base: Path, *stages: object, **more: object) -> Path:
    """Write a small job directory; `more` are fields of its spec."""
    examples: list[Example] = [vote(i % 2 == 0, prompt=f"Q{i}", at=i) for i in range(12)]
    examples += [correction(prompt=f"C{i}", at=20 + i) for i in range(4)]
    spec = job_spec(base, *stages, **more)  # type: ignore[arg-type]
    write_job(directory, spec, examples, examples[:2])
    return directory


def start(directory: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "trainer.job", str(directory), *QUICK, *arguments]
    return subprocess.Popen(command, env=job_environment(1), stderr=subprocess.PIPE)


def test_a_job_with_a_session_of_its_own_stands_back_as_a_whole() -> None:
    """Started as the launcher starts it, its session's priority falls; in ours, only its own.

    Where Linux does not group processes by session its file is missing or says nothing.
    """
    code = (
        "import json, os, pathlib, trainer.job as job\n"
        f"group = pathlib.Path({str(AUTOGROUP)!r})\n"
        "read = lambda: group.read_text().split()[-1:] if group.exists() else []\n"
        "before = read(); job._stand_back(7)\n"
        "print(json.dumps([before, read(), os.nice(0)]))"
    )
    lowered = min(19, os.nice(0) + 7)
    for own in (True, False):
        done = subprocess.run(
            [sys.executable, "-c", code],
            start_new_session=own,
            capture_output=True,
            text=True,
            check=True,
        )
        before, after, nice = json.loads(done.stdout.splitlines()[-1])
        assert nice == lowered
        assert after == (["7"] if own and before else before)


def wait_for_step(directory: Path, step: int) -> None:
    until = time.monotonic() + 90
    while time.monotonic() < until:
        if any(line.step >= step for line in read_progress(directory)):
            return
        time.sleep(0.05)
    raise AssertionError(f"no step {step} within 90 s")


def test_a_snapshot_is_whole_and_known_by_its_data(tiny_model: Path, tmp_path: Path) -> None:
    """The same examples give the same hash in another directory; writing twice is refused."""
    one, two = job(tmp_path / "a", tiny_model, SFT), job(tmp_path / "b", tiny_model, APO)
    assert dataset_sha256(one) == dataset_sha256(two)
    with pytest.raises(FileExistsError, match="immutable"):
        job(tmp_path / "a", tiny_model, SFT)


def test_two_stages_give_one_adapter_and_a_second_run_changes_nothing(
    tiny_model: Path, tmp_path: Path
) -> None:
    """SFT then APO ends in an adapter of content files only, a report, and idempotence."""
    directory = job(tmp_path / "job", tiny_model, SFT, APO)
    assert main([str(directory), *QUICK]) == 0
    names = sorted(path.name for path in (directory / ADAPTER).iterdir())
    assert names == ["adapter_config.json", "adapter_model.safetensors"]
    config = (directory / ADAPTER / "adapter_config.json").read_text(encoding="utf-8")
    assert json.loads(config)["base_model_name_or_path"] == "tiny"
    assert str(tiny_model) not in config
    report = read_report(directory)
    assert list(report.train_metrics) == ["1-sft", "2-kto-apo_zero_unpaired"]
    assert report.train_counts["liked"] == 6
    fractions = [line.fraction for line in read_progress(directory)]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    before = (directory / ADAPTER / "adapter_model.safetensors").stat().st_mtime_ns
    assert main([str(directory), *QUICK]) == 0
    assert (directory / ADAPTER / "adapter_model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", ["none", "torn"])
def test_a_killed_run_goes_on_from_its_last_whole_checkpoint(
    tiny_model: Path, tmp_path: Path, damage: str
) -> None:
    """After kill -9 the next attempt resumes; past a torn checkpoint, from the one before."""
    stage = APO.model_copy(update={"epochs": 20.0, "batch_size": 4})
    directory = job(tmp_path / "job", tiny_model, stage)
    process = start(directory)
    wait_for_step(directory, 8)
    process.kill()
    process.communicate()
    lines = len(read_progress(directory))
    if damage == "torn":
        scratch = directory / "work" / "1-kto-apo_zero_unpaired.scratch"
        newest = max(scratch.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
        (newest / "optimizer.pt").write_bytes(b"torn")
    assert main([str(directory), *QUICK, "--resume"]) == 0
    again = [line.step for line in read_progress(directory)[lines:] if line.step]
    assert again[0] > 1
    assert again[-1] == 80
    assert (directory / ADAPTER).is_dir()
    assert not (directory / "work").exists()


def test_sigterm_stops_with_143_and_says_so(tiny_model: Path, tmp_path: Path) -> None:
    """A stop is clean: no adapter, a sentence, and the documented exit code."""
    directory = job(tmp_path / "job", tiny_model, LONG)
    process = start(directory)
    wait_for_step(directory, 1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == EXIT_STOPPED
    assert errors.decode().strip().endswith("--resume goes on from the last checkpoint")
    assert not (directory / ADAPTER).exists()


def test_an_orphan_stops_itself(tiny_model: Path, tmp_path: Path) -> None:
    """When the process that started it is gone, the job ends within seconds."""
    directory = job(tmp_path / "job", tiny_model, LONG)
    script = (
        "import os, subprocess, sys, time\n"
        f"command = [sys.executable, '-m', 'trainer.job', {str(directory)!r}, *{QUICK!r}]\n"
        "process = subprocess.Popen([*command, '--parent', str(os.getpid())])\n"
        "print(process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        env=job_environment(1),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    wait_for_step(directory, 1)
    parent.kill()
    parent.communicate()
    assert wait_until_gone(pid, 20)


def wait_until_gone(pid: int, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            state = (
                Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
            )
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda job: (job / TRAIN).open("a").write("{not json\n"), "line 17"),
        (lambda job: (job / TRAIN).unlink(), "No such file"),
        (lambda job: (job / "job.json").write_text("{}"), "job.json"),
    ],
)
def test_rubbish_is_refused_with_code_2(
    break_it: object,
    sentence: str,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One plain sentence names the file, on stderr and in the progress."""
    directory = job(tmp_path / "job", tiny_model, SFT)
    break_it(directory)  # type: ignore[operator]
    assert main([str(directory), *QUICK]) == 2
    error = capsys.readouterr().err
    assert error.startswith("failed: ")
    assert sentence in error
    assert read_progress(directory)[-1].message.startswith("failed: ")


def test_a_loss_that_is_no_number_ends_the_run_with_code_6(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A learning rate out of all reason ends with advice instead of an adapter."""
    wild = SFT.model_copy(update={"learning_rate": 1e30, "epochs": 20.0})
    directory = job(tmp_path / "job", tiny_model, wild)
    assert main([str(directory), *QUICK]) == 6
    assert "try a lower training.learning_rate" in capsys.readouterr().err


def test_a_job_elsewhere_takes_what_it_is_given_there(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device's name is the machine's own; of several GPUs offered, the first is used."""
    spec = Here(device="auto").applied(job_spec(tiny_model, SFT, device="cuda:3"))
    assert spec.device == "auto"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    _set_threads(spec)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2"


def test_errors_of_the_machine_have_their_own_codes() -> None:
    """Memory and disk are told apart from faults of ours."""
    from trainer.faults import diagnose

    assert diagnose(MemoryError())[0] == 4
    assert (
        diagnose(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))[0] == 4
    )
    assert diagnose(OSError(28, "No space left on device"))[0] == 5
    assert diagnose(KeyError("x"))[0] == 1


async def test_the_local_launcher_runs_and_reports(tiny_model: Path, tmp_path: Path) -> None:
    """Progress is streamed to the end and the exit code is 0; output is kept in job.log."""
    directory = job(tmp_path / "job", tiny_model, SFT)
    launcher = LocalLauncher(arguments=QUICK)
    handle = await launcher.submit(directory, threads=1, nice=5, timeout_s=120)
    seen = [line async for line in launcher.watch(handle)]
    assert await launcher.fetch(handle) == 0
    assert seen[-1].fraction == 1.0
    assert (directory / "job.log").exists()


async def test_the_local_launcher_cancels_and_tells_failures(
    tiny_model: Path, tmp_path: Path
) -> None:
    """Cancel ends the process with 143; a failure and a timeout raise with the log's last lines."""
    launcher = LocalLauncher(arguments=QUICK)
    long = await launcher.submit(
        job(tmp_path / "a", tiny_model, LONG), threads=1, nice=0, timeout_s=120
    )
    await asyncio.sleep(0.5)
    await launcher.cancel(long)
    assert await launcher.fetch(long) == EXIT_STOPPED
    broken = job(tmp_path / "b", tiny_model, SFT)
    (broken / TRAIN).unlink()
    with pytest.raises(TrainingError, match=r"exit code 2[\s\S]*failed: .*train.jsonl"):
        await launcher.fetch(await launcher.submit(broken, threads=1, nice=0, timeout_s=120))
    slow = job(tmp_path / "c", tiny_model, LONG)
    with pytest.raises(TrainingError, match="took longer than 0 minutes"):
        await launcher.fetch(await launcher.submit(slow, threads=1, nice=0, timeout_s=0.5))


def test_the_launcher_is_not_tied_to_a_machine() -> None:
    """A handle is a directory and a name; the environment holds the thread budget."""
    assert Handle(Path("/jobs/1"), "ray-7").directory == Path("/jobs/1")
    assert job_environment(3)["OMP_NUM_THREADS"] == "3"


def test_a_job_started_by_hand_holds_numpy_to_its_threads_too(
    tiny_model: Path, tmp_path: Path
) -> None:
    """Nothing that computes is loaded before its number of threads is said; a given one stands."""
    directory = job(tmp_path / "job", tiny_model, LONG)
    script = (
        "import os, sys; from pathlib import Path; from core.jobs import read_spec\n"
        "from trainer.job import POOLS, _set_threads\n"
        "early = {'numpy', 'torch'} & set(sys.modules)\n"
        "_set_threads(read_spec(Path(sys.argv[1])))\n"
        "print(early, [os.environ[pool] for pool in POOLS])"
    )
    bare = {name: value for name, value in os.environ.items() if name not in POOLS}
    done = subprocess.run(
        [sys.executable, "-c", script, str(directory)],
        env={**bare, "MKL_NUM_THREADS": "7", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "set() ['1', '7', '1', '1']"
