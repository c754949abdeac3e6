"""Run jobs somewhere else than in this process: the interface, and the launcher for this machine.

A launcher takes a job directory and nothing else; what comes back is in that directory. The local
one starts `python -m trainer.job` with its own threads and priority, and never lets it outlive this
process. Knows no torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from core.errors import TrainingError
from core.jobs import LOG, PROGRESS, Progress
from trainer.job import POOLS

EXIT_STOPPED = 128 + signal.SIGTERM

_POLL_S = 0.2
_KILL_AFTER_S = 15.0
"""A job that has not ended this long after SIGTERM is killed; its directory stays whole."""
_LOG_LINES = 8


@dataclass(frozen=True, slots=True)
class Handle:
    """A submitted job: its directory, and the launcher's own name for this attempt."""

    directory: Path
    id: str


class Launcher(Protocol):
    """Anything that can run a job directory: this machine, a cluster, another host."""

    async def submit(self, directory: Path, *, threads: int, nice: int, timeout_s: float) -> Handle:
        """Start the job, or go on with what an earlier attempt left."""
        ...

    def watch(self, handle: Handle) -> AsyncIterator[Progress]:
        """Yield the progress of this attempt until it ends."""
        ...

    async def cancel(self, handle: Handle) -> None:
        """Stop the job and return once it is gone. Idempotent."""
        ...

    async def wait(self, handle: Handle) -> int:
        """Return 0, or 143 for a cancelled job; raises TrainingError if it failed or took too
        long."""
        ...


@dataclass(slots=True)
class _Attempt:
    process: asyncio.subprocess.Process
    progress_offset: int
    deadline: float
    timeout_s: float
    cancelled: bool = False


class LocalLauncher:
    """Runs jobs as subprocesses of this one. Use from one event loop."""

    def __init__(self, *, arguments: Sequence[str] = (), python: str = sys.executable) -> None:
        self._arguments = tuple(arguments)
        self._python = python
        self._attempts: dict[str, _Attempt] = {}

    async def submit(self, directory: Path, *, threads: int, nice: int, timeout_s: float) -> Handle:
        """Start `python -m trainer.job --resume`; its output is appended to `job.log`."""
        progress = directory / PROGRESS
        offset = progress.stat().st_size if progress.exists() else 0
        with (directory / LOG).open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                self._python,
                *("-m", "trainer.job", str(directory), "--resume"),
                *("--parent", str(os.getpid()), "--nice", str(nice)),
                *self._arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=job_environment(threads),
                start_new_session=True,  # Ctrl-C in our terminal is ours to answer
            )
        handle = Handle(directory, f"local-{process.pid}")
        deadline = asyncio.get_running_loop().time() + timeout_s
        self._attempts[handle.id] = _Attempt(process, offset, deadline, timeout_s)
        return handle

    async def watch(self, handle: Handle) -> AsyncIterator[Progress]:
        """Yield each complete line of `progress.jsonl` as it appears, until the job has ended."""
        attempt = self._attempts[handle.id]
        offset = attempt.progress_offset
        while True:
            ended = attempt.process.returncode is not None
            lines, offset = _complete_lines(handle.directory / PROGRESS, offset)
            for line in lines:
                with contextlib.suppress(ValidationError):  # torn by a crash of an earlier attempt
                    yield Progress.model_validate_json(line)
            if ended:
                return
            await asyncio.sleep(_POLL_S)

    async def cancel(self, handle: Handle) -> None:
        """Send SIGTERM, then SIGKILL to one that does not end; returns once the process is gone."""
        attempt = self._attempts[handle.id]
        attempt.cancelled = True
        await _end(attempt.process)

    async def wait(self, handle: Handle) -> int:
        """Wait for the end, at most until the timeout; being cancelled here leaves the job
        running."""
        attempt = self._attempts[handle.id]
        left = attempt.deadline - asyncio.get_running_loop().time()
        try:
            code = await asyncio.wait_for(attempt.process.wait(), max(0.0, left))
        except TimeoutError:
            await _end(attempt.process)
            raise TrainingError(
                f"the run took longer than {attempt.timeout_s / 60:.0f} minutes "
                f"(training.timeout_minutes) and was stopped; {_log_tail(handle.directory)}"
            ) from None
        if code == 0:
            return 0
        if attempt.cancelled:
            return EXIT_STOPPED
        raise TrainingError(f"the run ended with exit code {code}; {_log_tail(handle.directory)}")


def job_environment(threads: int) -> dict[str, str]:
    """Return the environment of a job: its thread budget, no network, no telemetry.

    glibc's allocator is told to keep its pages: tensors of a few megabytes are otherwise mapped and
    unmapped at every operation, which cost a fifth of a CPU run's time.
    """
    count = str(max(1, threads))
    here = str(Path(__file__).resolve().parents[1])
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        **dict.fromkeys(POOLS, count),
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "DO_NOT_TRACK": "1",
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
    }


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _KILL_AFTER_S)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _complete_lines(path: Path, offset: int) -> tuple[list[str], int]:
    """Return the whole lines from a byte offset on, and where the next ones begin."""
    if not path.exists():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        whole, newline, _ = file.read().rpartition(b"\n")
    return whole.decode(errors="replace").splitlines(), offset + len(whole) + len(newline)


def _log_tail(directory: Path) -> str:
    path = directory / LOG
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    lines = [line for line in text.splitlines() if line.strip()][-_LOG_LINES:]
    return f"the last lines of {path}:\n" + "\n".join(lines)
