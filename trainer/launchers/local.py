"""Run jobs on this machine: `python -m trainer.job` with its own threads and priority.

A job never outlives the process that asked for it. Knows no torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import TrainingError
from core.jobs import LOG, PROGRESS, Progress
from trainer.faults import EXIT_STOPPED
from trainer.launchers.base import (
    Handle,
    follow_progress,
    job_environment,
    log_tail,
    progress_size,
)

_KILL_AFTER_S = 15.0
"""A job that has not ended this long after SIGTERM is killed; its directory stays whole."""


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
        offset = progress_size(directory)
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

        def ended() -> bool:
            return attempt.process.returncode is not None

        async for line in follow_progress(
            handle.directory / PROGRESS, attempt.progress_offset, ended
        ):
            yield line

    async def release(self, handle: Handle) -> None:
        """Stop the job: it would be nobody's. The next `submit` goes on from its checkpoint."""
        await self.cancel(handle)

    async def cancel(self, handle: Handle) -> None:
        """Send SIGTERM, then SIGKILL to one that does not end; returns once the process is gone."""
        attempt = self._attempts[handle.id]
        attempt.cancelled = True
        await _end(attempt.process)

    async def fetch(self, handle: Handle) -> int:
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
                f"(training.timeout_minutes) and was stopped; {log_tail(handle.directory)}"
            ) from None
        if code == 0:
            return 0
        if attempt.cancelled:
            return EXIT_STOPPED
        raise TrainingError(f"the run ended with exit code {code}; {log_tail(handle.directory)}")


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
