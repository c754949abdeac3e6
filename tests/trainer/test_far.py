"""The script that runs on the other machine, run on this one: states, locks, lines, refusals."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trainer.launchers import far


def run_there(root: Path, name: str = "run_1") -> far.Run:
    """Make a run's directory."""
    run = far.Run(root, name)
    run.job.mkdir(parents=True)
    return run


def answers(root: Path, operation: str, **request: Any) -> list[dict[str, Any]]:
    """Do one operation in a Python of its own, as ssh does, behind a login shell that chats."""
    asked = json.dumps({"operation": operation, "root": str(root), **request})
    done = subprocess.run(
        ["/bin/sh", "-c", f'echo "Welcome to gpu-box!"; exec {sys.executable} - "$0"', asked],
        input=Path(far.__file__).read_text(encoding="utf-8"),
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(far.MARK)]
    return [json.loads(line.removeprefix(far.MARK)) for line in lines]


def test_a_run_is_what_holds_its_lock(tmp_path: Path) -> None:
    """Nothing, running, dead, ended: told by the lock, the first start and the exit code."""
    run = run_there(tmp_path)
    assert run.state() == "none"
    run.write("began.json", {"at": 1.0})
    assert run.state() == "dead"
    lock = run.take(fcntl.LOCK_EX)
    assert lock is not None
    assert run.state() == "running"
    assert run.take(fcntl.LOCK_EX) is None
    os.close(lock)
    run.write("exit.json", {"code": far.STOPPED, "timed_out": False})
    assert run.state() == "dead"
    run.write("exit.json", {"code": 5, "timed_out": False})
    assert run.state() == "ended"


def test_the_progress_is_followed_by_whole_lines_from_an_offset(tmp_path: Path) -> None:
    """A torn last line is not sent; the next offset is after the last whole one."""
    run = run_there(tmp_path)
    progress = run.job / "progress.jsonl"
    progress.write_text("eins\nzw\u00f6lf\ndr", encoding="utf-8")
    run.write("exit.json", {"code": 0, "timed_out": False})
    lines, end = far.follow(tmp_path, {"name": "run_1", "offset": 5})
    assert lines == {"lines": "zw\u00f6lf\n", "offset": 12}
    assert end == {"state": "ended", "code": 0, "timed_out": False}


def test_long_progress_comes_in_pieces_of_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it is cut, every byte of it arrives once."""
    monkeypatch.setattr(far, "_CHUNK_BYTES", 64)
    run = run_there(tmp_path)
    text = "".join(f"line {number}\n" for number in range(100))
    (run.job / "progress.jsonl").write_text(text, encoding="utf-8")
    *pieces, end = far.follow(tmp_path, {"name": "run_1", "offset": 0})
    assert "".join(piece["lines"] for piece in pieces) == text
    assert len(pieces) > 10
    assert end == {"state": "none"}


def test_a_login_shell_may_chat(tmp_path: Path) -> None:
    """Only marked lines are answers; what is missing there is named; old Pythons are told."""
    asked = {"packages": ["json", "no_such_package"], "python": [3, 99]}
    (found,) = answers(tmp_path, "look", **asked)
    assert found["missing"] == ["no_such_package"]
    assert found["python_works"] is False
    assert found["state"] == "none"


def test_nothing_is_started_without_a_whole_job_and_nothing_removed_while_it_runs(
    tmp_path: Path,
) -> None:
    """Refusals are answers, with the reason."""
    run = run_there(tmp_path)
    (refused,) = answers(tmp_path, "start", name="run_1")
    assert "no job.json" in refused["error"]
    lock = run.take(fcntl.LOCK_EX)
    (refused,) = answers(tmp_path, "remove", name="run_1")
    assert "still there" in refused["error"]
    assert lock is not None
    os.close(lock)
    assert answers(tmp_path, "remove", name="run_1") == [{}]
    assert answers(tmp_path, "remove", name="run_1") == [{}]
    assert not run.path.exists()


@pytest.mark.parametrize("name", ["", "..", "../x", "/etc", "-rf", "a b", "a;b", "$(id)"])
def test_a_name_cannot_leave_the_directory(name: str, tmp_path: Path) -> None:
    """Only plain names are taken."""
    with pytest.raises(far.Refusal, match="run name"):
        far.Run(tmp_path, name)
