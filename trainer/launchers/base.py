"""Run jobs somewhere else than in this process: what every launcher does, and what they share.

A launcher takes a job directory and nothing else; what comes back is in that directory. Knows no
torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from core.jobs import LOG, PROGRESS, Progress
from trainer.job import POOLS

_LOG_LINES = 8
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Handle:
    """A submitted job: its directory, and the launcher's own name for this attempt."""

    directory: Path
    id: str


class Launcher(Protocol):
    """Anything that can run a job directory: this machine, another host, a cluster."""

    async def submit(self, directory: Path, *, threads: int, nice: int, timeout_s: float) -> Handle:
        """Start the job, go on with what an earlier attempt left, or find the one that still runs.

        `threads` and `nice` are meant for this machine; a launcher that runs the job elsewhere has
        its own. Raises TrainingError.
        """
        ...

    def watch(self, handle: Handle) -> AsyncIterator[Progress]:
        """Yield the progress of this attempt until it ends."""
        ...

    async def fetch(self, handle: Handle) -> int:
        """Wait for the end and bring `adapter/`, `report.json` and the log into the directory.

        Returns 0, or 143 for a cancelled job; raises TrainingError if it failed or took too long.
        Being cancelled here leaves the job running.
        """
        ...

    async def cancel(self, handle: Handle) -> None:
        """Stop the job and return once it is gone and holds nothing. Idempotent."""
        ...

    async def release(self, handle: Handle) -> None:
        """This process ends: stop a job that cannot outlive it, leave any other to the next
        `submit` of its directory. Idempotent.
        """
        ...


def job_environment(threads: int) -> dict[str, str]:
    """Return the environment of a job: its thread budget, no network, no telemetry.

    glibc's allocator is told to keep its pages: tensors of a few megabytes are otherwise mapped and
    unmapped at every operation, which cost a fifth of a CPU run's time.
    """
    here = str(Path(__file__).resolve().parents[2])
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, **job_variables(threads), "PYTHONPATH": os.pathsep.join(paths)}


def job_variables(threads: int) -> dict[str, str]:
    """Return what a job's environment holds on any machine; `threads` 0 leaves its cores to it."""
    budget = dict.fromkeys(POOLS, str(threads)) if threads else {}
    return {
        **budget,
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "DO_NOT_TRACK": "1",
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
    }


def complete_lines(path: Path, offset: int) -> tuple[list[str], int]:
    """Return the whole lines from a byte offset on, and where the next ones begin."""
    if not path.exists():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        whole, newline, _ = file.read().rpartition(b"\n")
    return whole.decode(errors="replace").splitlines(), offset + len(whole) + len(newline)


async def follow_progress(
    path: Path, offset: int, ended: Callable[[], bool]
) -> AsyncIterator[Progress]:
    """Yield each whole line of `progress.jsonl` from a byte offset on, until the job has ended."""
    while True:
        last = ended()  # asked before reading, so that nothing of the end is missed
        lines, offset = complete_lines(path, offset)
        for line in lines:
            with contextlib.suppress(ValidationError):  # torn by a crash of an earlier attempt
                yield Progress.model_validate_json(line)
        if last:
            return
        await asyncio.sleep(_POLL_S)


def progress_size(directory: Path) -> int:
    """Return where this attempt's progress will begin, in bytes."""
    path = directory / PROGRESS
    return path.stat().st_size if path.exists() else 0


def log_tail(directory: Path) -> str:
    """Return the last lines of a job's log, as a failure shows them."""
    path = directory / LOG
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    lines = [line for line in text.splitlines() if line.strip()][-_LOG_LINES:]
    return f"the last lines of {path}:\n" + "\n".join(lines)
