"""Run jobs on a Ray cluster. The run is the cluster's: it outlives this process and its node.

Ray is never loaded here, since it ends the process that uses it when its cluster is lost: a bridge,
one process for each run, speaks to it (trainer.launchers.cluster). A bridge that breaks is started
anew and finds the run where it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import TrainingError
from core.jobs import PROGRESS, Progress, read_progress
from core.sections import LauncherSettings
from trainer.faults import EXIT_STOPPED
from trainer.launchers.base import Handle, follow_progress, job_environment, log_tail
from trainer.launchers.cluster.order import (
    CANCEL,
    CLUSTER,
    EXIT_AWAY,
    EXIT_CLUSTER,
    Ending,
    Message,
    Order,
)

log = logging.getLogger(__name__)
BRIDGE_LOG = "bridge.log"
"""What Ray itself said on our side; it is removed with the run's other files."""

_PAUSES_S = (1.0, 5.0, 15.0, 60.0)
"""Between two tries to reach a cluster that has the run; the last holds on."""
_SPARE_S = 120.0
"""The cluster itself ends a run in time; this much later we do not wait for its word any more."""
_CANCEL_S = 150.0
_LEAVE_S = 5.0
_LOOK_S = 90.0


@dataclass(slots=True)
class _Attempt:
    process: asyncio.subprocess.Process
    order: Order
    progress_offset: int
    deadline: float
    ending: asyncio.Task[Ending] | None = None
    cancelled: bool = False


class RayLauncher:
    """Runs jobs on the cluster the settings name. Use from one event loop."""

    def __init__(self, settings: LauncherSettings, *, arguments: Sequence[str] = ()) -> None:
        self._settings = settings
        self._arguments = tuple(arguments)
        self._attempts: dict[str, _Attempt] = {}

    async def submit(self, directory: Path, *, threads: int, nice: int, timeout_s: float) -> Handle:
        """Hand the run to the cluster, or find it there; returns once the cluster has it.

        A cluster that has it and is out of reach is tried again until the run's time is over.
        """
        _check_installed()
        progress = directory / PROGRESS
        offset = progress.stat().st_size if progress.exists() else 0
        order = self._order(timeout_s)
        deadline = asyncio.get_running_loop().time() + timeout_s + _SPARE_S
        attempt = _Attempt(await _bridge(directory, order), order, offset, deadline)
        try:
            said = await _hear(attempt.process)
            _raise_unless_taken(directory, said)
        except BaseException:
            await _leave(attempt.process)
            raise
        handle = Handle(directory, f"ray-{attempt.process.pid}")
        attempt.ending = asyncio.create_task(_until_ended(directory, attempt, said))
        self._attempts[handle.id] = attempt
        return handle

    async def look(self) -> str:
        """Say what the cluster has; raises TrainingError if a run could not train there."""
        _check_installed()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "trainer.launchers.cluster.look", self._order(_LOOK_S).model_dump_json()),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**job_environment(1), "RAY_USAGE_STATS_ENABLED": "0"},
        )
        try:
            said, _ = await asyncio.wait_for(process.communicate(), _LOOK_S)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise TrainingError(
                f"the cluster at {self._settings.ray_address} did not answer in {_LOOK_S:.0f} s"
            ) from None
        if process.returncode:
            raise TrainingError(said.decode().strip() or "what looks at the cluster broke off")
        return said.decode().strip()

    def _order(self, timeout_s: float) -> Order:
        wanted = self._settings
        return Order(
            address=wanted.ray_address,
            gpus=wanted.ray_gpus,
            memory_gb=wanted.ray_memory_gb,
            retries=wanted.ray_retries,
            base=wanted.base,
            threads=wanted.threads,
            timeout_s=timeout_s,
            arguments=self._arguments,
        )

    async def watch(self, handle: Handle) -> AsyncIterator[Progress]:
        """Yield each complete line of `progress.jsonl` as it arrives, until the job has ended."""
        attempt = self._attempts[handle.id]
        path = handle.directory / PROGRESS
        async for line in follow_progress(path, attempt.progress_offset, _task(attempt).done):
            yield line

    async def fetch(self, handle: Handle) -> int:
        """Wait for the end; adapter, report and log are in the directory then."""
        attempt = self._attempts[handle.id]
        ending = await asyncio.shield(_task(attempt))
        if ending.code == 0:
            return 0
        if attempt.cancelled:
            return EXIT_STOPPED
        what = ending.sentence or f"the run ended with exit code {ending.code}"
        raise TrainingError(f"{what}; {log_tail(handle.directory)}")

    async def cancel(self, handle: Handle) -> None:
        """Have the cluster end the run; returns once it holds nothing of it."""
        attempt = self._attempts[handle.id]
        attempt.cancelled = True
        _say(attempt.process, CANCEL)
        done, _ = await asyncio.wait({_task(attempt)}, timeout=_CANCEL_S)
        if not done:
            log.warning(
                "the cluster at %s did not say that it ended the run; it ends there by itself "
                "when its time is over",
                attempt.order.address,
            )
        await self._let_go(attempt)

    async def release(self, handle: Handle) -> None:
        """Leave the run to the cluster: the next `submit` of its directory finds it."""
        await self._let_go(self._attempts[handle.id])

    async def _let_go(self, attempt: _Attempt) -> None:
        task = _task(attempt)
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await _leave(attempt.process)


def _check_installed() -> None:
    if importlib.util.find_spec("ray") is None:
        raise TrainingError(
            "launcher.kind is \"ray\" but Ray is not installed; run: pip install '.[ray]'"
        )


def _task(attempt: _Attempt) -> asyncio.Task[Ending]:
    if attempt.ending is None:
        raise TrainingError("the run was not submitted")
    return attempt.ending


def _raise_unless_taken(directory: Path, said: Message) -> None:
    """Raise TrainingError if the cluster cannot have the run; a run it had may be out of reach."""
    if said.ending is None or said.ending.code not in (EXIT_AWAY, EXIT_CLUSTER):
        return
    had = any(line.stage == CLUSTER for line in read_progress(directory))
    if said.ending.code == EXIT_CLUSTER or not had:
        raise TrainingError(said.ending.sentence)


async def _bridge(directory: Path, order: Order) -> asyncio.subprocess.Process:
    with (directory / BRIDGE_LOG).open("ab") as errors:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "trainer.launchers.cluster.bridge"),
            *(str(directory), order.model_dump_json()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env={**job_environment(1), "RAY_USAGE_STATS_ENABLED": "0"},
            start_new_session=True,  # Ctrl-C in our terminal is ours to answer
        )


async def _hear(process: asyncio.subprocess.Process) -> Message:
    """Return the bridge's next word; one that ended without a word has lost the cluster."""
    line = await process.stdout.readline() if process.stdout else b""
    if line:
        return Message.model_validate_json(line)
    code = await process.wait()
    sentence = f"the process that speaks to the cluster ended with exit code {code} ({BRIDGE_LOG})"
    return Message(event="ended", ending=Ending(code=EXIT_AWAY, sentence=sentence))


async def _until_ended(directory: Path, attempt: _Attempt, said: Message) -> Ending:
    """Return how the run ended, through as many bridges as it takes until its time is over."""
    clock = asyncio.get_running_loop().time
    pauses = iter(_PAUSES_S)
    while True:
        if said.ending is None:
            pauses = iter(_PAUSES_S)
            said = await _hear(attempt.process)
            continue
        if said.ending.code != EXIT_AWAY or clock() > attempt.deadline:
            await _leave(attempt.process)
            return said.ending
        log.warning("run in %s: %s; trying again", directory, said.ending.sentence)
        await asyncio.sleep(next(pauses, _PAUSES_S[-1]))
        await _leave(attempt.process)
        attempt.process = await _bridge(directory, attempt.order)
        if attempt.cancelled:
            _say(attempt.process, CANCEL)
        said = await _hear(attempt.process)


def _say(process: asyncio.subprocess.Process, word: str) -> None:
    if process.stdin is not None and not process.stdin.is_closing():
        with contextlib.suppress(ConnectionError):
            process.stdin.write(f"{word}\n".encode())


async def _leave(process: asyncio.subprocess.Process) -> None:
    """End a bridge, not its run."""
    if process.stdin is not None:
        process.stdin.close()
        with contextlib.suppress(ConnectionError):
            await process.stdin.wait_closed()
    try:
        await asyncio.wait_for(process.wait(), _LEAVE_S)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
