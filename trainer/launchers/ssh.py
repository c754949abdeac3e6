"""Run jobs on one machine reached by ssh: a host name and a directory, no daemon there.

A job outlives this process and its connection; the next `submit` of its directory finds it. What
happens there is in trainer.launchers.far_run; this holds the attempts of one process. Knows no
torch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.jobs import PROGRESS, Progress
from core.sections import LauncherSettings
from trainer.faults import EXIT_STOPPED
from trainer.launchers.base import Handle, follow_progress, progress_size
from trainer.launchers.connection import Address, Connection
from trainer.launchers.far_run import FarRun
from trainer.launchers.patience import Patience


@dataclass(slots=True)
class _Attempt:
    run: FarRun
    task: asyncio.Task[None]
    progress_offset: int
    cancelled: bool = False


class SshLauncher:
    """Runs jobs on the machine that the settings name. Use from one event loop."""

    def __init__(
        self,
        settings: LauncherSettings,
        *,
        config: Path | None = None,
        arguments: Sequence[str] = (),
        patience: Patience | None = None,
    ) -> None:
        self._settings = settings
        self._address = host_address(settings, config)
        self._arguments = tuple(arguments)
        self._patience = patience or Patience()
        self._attempts: dict[str, _Attempt] = {}

    async def submit(self, directory: Path, *, threads: int, nice: int, timeout_s: float) -> Handle:
        """Begin to send and start the job, or to follow the one that is there.

        Returns at once: what goes wrong is raised by `watch` and `fetch`, and sending can be
        cancelled. The time limit counts from the first start there.
        """
        offset = progress_size(directory)
        run = FarRun(
            directory,
            Connection(self._address),
            self._settings,
            timeout_s=timeout_s,
            arguments=self._arguments,
            patience=self._patience,
        )
        handle = Handle(directory, f"ssh-{len(self._attempts)}-{run.name}")
        task = asyncio.create_task(run.carry(), name=handle.id)
        self._attempts[handle.id] = _Attempt(run, task, offset)
        return handle

    async def watch(self, handle: Handle) -> AsyncIterator[Progress]:
        """Yield each line as it arrives from there or is said here, until all is brought back."""
        attempt = self._attempts[handle.id]
        lines = follow_progress(
            handle.directory / PROGRESS, attempt.progress_offset, attempt.task.done
        )
        async for line in lines:
            yield line
        if not attempt.task.cancelled():
            attempt.task.result()

    async def fetch(self, handle: Handle) -> int:
        """Wait until the results are here and gone there; being cancelled here changes nothing.

        Raises RunElsewhere if the machine is out of reach for long: the job goes on there.
        """
        attempt = self._attempts[handle.id]
        await asyncio.wait({attempt.task})
        if attempt.cancelled and attempt.task.cancelled():
            return EXIT_STOPPED
        attempt.task.result()
        return 0

    async def cancel(self, handle: Handle) -> None:
        """Stop the job there and delete its directory there.

        Raises RunElsewhere if the machine cannot be reached: the job may go on.
        """
        attempt = self._attempts[handle.id]
        attempt.cancelled = True
        await _let_go(attempt)
        await attempt.run.stop()

    async def release(self, handle: Handle) -> None:
        """Stop following; the job goes on there."""
        await _let_go(self._attempts[handle.id])


async def _let_go(attempt: _Attempt) -> None:
    attempt.task.cancel()
    await asyncio.gather(attempt.task, return_exceptions=True)


def host_address(settings: LauncherSettings, config: Path | None) -> Address:
    """Return where the settings' ssh launcher goes."""
    return Address(settings.ssh_host, settings.ssh_directory, settings.ssh_python, config)
