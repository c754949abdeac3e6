"""What is left to do of a grid, worked on side by side: each task in a process of its own.

A task is done when the file it makes is there, and may start when the files it needs are; so an
interrupted queue goes on where it stopped. Knows nothing of what the tasks do (see work).
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.launchers.base import job_environment

LOG = "work.log"
_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Task:
    """An argument of `benchmarks.learning.work`, the file it makes and those it needs."""

    argument: str
    makes: Path
    needs: tuple[Path, ...] = ()

    @property
    def ready(self) -> bool:
        """Say whether all it needs is there."""
        return all(path.exists() for path in self.needs)


@dataclass(frozen=True, slots=True)
class _Running:
    task: Task
    process: subprocess.Popen[bytes]
    began_s: float


def work_off(tasks: Sequence[Task], home: Path, at_once: int) -> int:
    """Do what is not done, `at_once` processes side by side; return how many could not be done.

    Their output goes to `home`'s log. A task whose needs nobody makes counts as failed.
    """
    waiting = [task for task in tasks if not task.makes.exists()]
    running: list[_Running] = []
    failed, total = 0, len(waiting)
    home.mkdir(parents=True, exist_ok=True)
    while waiting or running:
        while len(running) < at_once and (task := next((t for t in waiting if t.ready), None)):
            waiting.remove(task)
            running.append(_Running(task, _start(task, home), time.monotonic()))
        if not running:
            for task in waiting:
                print(f"{task.argument}: what it needs was not made", file=sys.stderr, flush=True)
            return failed + len(waiting)
        time.sleep(_POLL_S)
        for entry in [entry for entry in running if entry.process.poll() is not None]:
            running.remove(entry)
            failed += entry.process.returncode != 0
            _tell(entry, total - len(waiting) - len(running), total, home)
    return failed


def _start(task: Task, home: Path) -> subprocess.Popen[bytes]:
    with (home / LOG).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks.learning.work", task.argument],
            env=job_environment(1),
            stdout=log,
            stderr=log,
        )


def _tell(entry: _Running, done: int, total: int, home: Path) -> None:
    ended = "done" if entry.process.returncode == 0 else f"FAILED, see {home / LOG},"
    took = f"{time.monotonic() - entry.began_s:.0f} s"
    name = Path(entry.task.argument).name
    print(f"{done} of {total}: {name} {ended} in {took}", file=sys.stderr, flush=True)
