"""The life of one job on another machine: sent, started, followed, brought back, cleared away.

Every step may be done again, by another process too: it finds what is there. A lost connection is
waited out; when that takes too long, or the machine will not, RunElsewhere leaves everything as it
is. Knows no events of the bot's and no torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from core.errors import RunElsewhere, TrainingError
from core.files import sha256_file
from core.jobs import JOB, LOG, REPORT, elsewhere_file
from core.sections import LauncherSettings
from trainer.launchers.base import job_variables, log_tail
from trainer.launchers.connection import SILENT_S, Connection
from trainer.launchers.delivery import Delivery
from trainer.launchers.elsewhere import (
    Elsewhere,
    left_elsewhere,
    read_elsewhere,
    write_elsewhere,
)
from trainer.launchers.far import RESULTS
from trainer.launchers.faults import Refused, Unreachable
from trainer.launchers.mirror import ProgressMirror
from trainer.launchers.patience import Patience, Persistence
from trainer.launchers.results import INCOMING, publish_results, verified
from trainer.launchers.ssh_check import Look, look

log = logging.getLogger(__name__)
RESTARTS = 3
"""How often a job that died there without a word is gone on with, in one attempt."""


class _End(BaseModel):
    state: str
    code: int = 0
    timed_out: bool = False


class _Results(BaseModel):
    job: str
    files: dict[str, str]


class FarRun:
    """One job directory of this machine, on another one. Use from one event loop."""

    def __init__(
        self,
        directory: Path,
        connection: Connection,
        settings: LauncherSettings,
        *,
        timeout_s: float,
        arguments: Sequence[str] = (),
        patience: Patience,
    ) -> None:
        self.directory = directory
        self.host = settings.ssh_host
        self._connection = connection
        self._settings = settings
        self._timeout_s = timeout_s
        self._arguments = tuple(arguments)
        self._patience = patience
        self.name = f"{directory.name}-{sha256_file(directory / JOB)[:12]}"
        self._mirror = ProgressMirror(directory)
        self._offset = 0
        persistence = Persistence(connection, patience, partial(self._mirror.note, "waiting"))
        self._insist = persistence.insist
        self._delivery = Delivery(
            directory, self.name, connection, persistence, self._mirror, own_base=settings.base
        )

    # -- the whole way

    async def carry(self) -> None:
        """Do what is not done of the job and bring its results. Raises TrainingError."""
        try:
            if not (self.directory / REPORT).exists():
                await self._collect(await self._to_its_end())
        except (Unreachable, Refused) as error:
            if not elsewhere_file(self.directory).exists():
                raise
            raise self._out_of_reach(error) from error
        await self._clear_away()

    async def stop(self) -> None:
        """End the job there and clear it away; returns once it holds nothing. Idempotent."""
        if not elsewhere_file(self.directory).exists():
            return
        try:
            await self._insist(lambda: self._ask("stop"), self._patience.stop_s)
            with contextlib.suppress(TrainingError, OSError):  # TimeoutError is an OSError
                async with asyncio.timeout(self._patience.stop_s):
                    await self._bring_log()
            await self._insist(lambda: self._ask("remove"), self._patience.stop_s)
        except (Unreachable, Refused) as error:
            raise RunElsewhere(
                f"{error}; it could not be stopped and may go on there. To stop it when "
                f"{self.host} answers: thumbtune retrain --resume {self.directory.name}"
            ) from error
        elsewhere_file(self.directory).unlink(missing_ok=True)

    async def _to_its_end(self) -> _End:
        for attempt in range(RESTARTS):
            if attempt:
                self._say("start", "it was cut off there; going on from its last checkpoint")
            found = await self._look()
            absent = found.state in ("none", "dead")
            if absent:
                found.check(self.host)
            await self._remember_place()
            if absent:
                await self._start(found)
            self._offset = 0  # what is here already is known by itself
            end = await self._follow()
            if end.state == "ended":
                return end
        raise TrainingError(
            f"{self.host}: the job was cut off {RESTARTS} times without saying why; see whether "
            f"the machine restarts or runs out of memory"
        )

    async def _look(self) -> Look:
        self._say("start", f"asking {self.host}")
        first = not elsewhere_file(self.directory).exists()
        patience = self._patience.first_s if first else self._patience.run_s
        found = await self._insist(lambda: look(self._connection, self.name), patience)
        await self._sweep()
        return found

    # -- there

    async def _start(self, found: Look) -> None:
        """Send what is missing there, and start the job unless somebody else just has."""
        delivered = await self._delivery.deliver(found.root)
        threads = self._settings.threads
        await self._insist(
            lambda: self._ask(
                "start",
                code=delivered.code,
                timeout_s=self._timeout_s,
                variables=job_variables(threads),
                arguments=[*delivered.arguments, "--threads", str(threads), *self._arguments],
            )
        )

    async def _follow(self) -> _End:
        """Copy the progress here as it grows, until the job is no longer there."""
        return await self._insist(self._follow_once)

    async def _follow_once(self) -> _End:
        asked = self._connection.answers(
            "follow", silent_s=SILENT_S, name=self.name, offset=self._offset
        )
        async with aclosing(asked) as answers:
            async for answer in answers:
                if "lines" in answer:
                    self._mirror.take(answer["lines"])
                    self._offset = answer["offset"]
                elif "state" in answer:
                    return _End.model_validate(answer)
        raise Unreachable(f"{self.host}: the connection ended")

    async def _ask(self, operation: str, **request: Any) -> dict[str, Any]:
        return await self._connection.ask(operation, name=self.name, **request)

    # -- back

    async def _collect(self, end: _End) -> None:
        """Bring a finished job's results; of one that failed bring the log, clear it away, raise
        TrainingError.
        """
        if end.code == 0 and not end.timed_out:
            await self._bring_results()
            return
        await self._bring_log()
        await self._clear_away()
        if end.timed_out:
            raise TrainingError(
                f"the run took longer than {self._timeout_s / 60:.0f} minutes "
                f"(training.timeout_minutes) and was stopped; {log_tail(self.directory)}"
            )
        raise TrainingError(
            f"the run on {self.host} ended with exit code {end.code}; {log_tail(self.directory)}"
        )

    async def _bring_results(self) -> None:
        for _ in range(2):
            digests = await self._bring(RESULTS)
            incoming = self.directory / INCOMING
            if await asyncio.to_thread(verified, incoming, digests):
                await asyncio.to_thread(publish_results, incoming, self.directory)
                return
            shutil.rmtree(incoming, ignore_errors=True)
        raise Refused(
            f"{self.host}: the results arrived damaged twice (their SHA-256 is not the one that "
            "was computed there); see whether disk and memory are sound on either side"
        )

    async def _bring_log(self) -> None:
        if LOG in await self._bring(()):
            (self.directory / INCOMING / LOG).replace(self.directory / LOG)

    async def _bring(self, wanted: Sequence[str]) -> dict[str, str]:
        """Bring these files and the log; return each one's SHA-256 there."""
        answer = await self._insist(lambda: self._ask("digest"))
        there = _Results.model_validate(answer)
        missing = [name for name in wanted if name not in there.files]
        if missing:
            raise TrainingError(f"{self.host}: the job ended well but left no {missing[0]}")
        if not self.directory.is_dir():
            raise TrainingError(f"{self.directory}: the job directory was removed meanwhile")
        names = [*wanted, *([LOG] if LOG in there.files else [])]
        target = self.directory / INCOMING
        tell = self._mirror.percents("fetch", "bringing the results back")
        await self._insist(lambda: self._connection.bring(there.job, names, target, tell))
        return {name: there.files[name] for name in names}

    async def _clear_away(self) -> None:
        """Delete people's words there; what cannot be reached now is deleted at the next contact
        once they are gone here.
        """
        if not elsewhere_file(self.directory).exists():
            return
        try:
            await self._insist(lambda: self._ask("remove"), self._patience.stop_s)
        except (Unreachable, Refused) as error:
            log.warning("run %s still lies on %s: %s", self.directory.name, self.host, error)
            return
        elsewhere_file(self.directory).unlink(missing_ok=True)

    async def _sweep(self) -> None:
        """Delete there what earlier runs had to leave."""
        directory = self._settings.ssh_directory
        for job, place in left_elsewhere(self.directory.parent, self.host, directory).items():
            with contextlib.suppress(Unreachable, Refused):
                await self._forget(place.name)
                elsewhere_file(job).unlink(missing_ok=True)

    async def _forget(self, name: str) -> None:
        await self._connection.ask("stop", name=name)
        await self._connection.ask("remove", name=name)

    # -- here

    async def _remember_place(self) -> None:
        """Write down that words of this job will lie there; clear away what lies there of it under
        another name, its words having changed since.
        """
        place = Elsewhere(host=self.host, directory=self._settings.ssh_directory, name=self.name)
        before = read_elsewhere(self.directory)
        if before is not None and before != place:
            if (before.host, before.directory) == (place.host, place.directory):
                await self._forget(before.name)
            else:
                self._say("start", f"begins anew on {self.host}; {_stays(before)}")
        write_elsewhere(self.directory, place)

    def _say(self, stage: str, message: str) -> None:
        self._mirror.note(stage, message)

    def _out_of_reach(self, error: TrainingError) -> RunElsewhere:
        return RunElsewhere(
            f"{error}; what is there stays, and a run that was started goes on there. Take it up "
            f"again with: thumbtune retrain --resume {self.directory.name}"
        )


def _stays(place: Elsewhere) -> str:
    return f"what is on {place.host} stays there, in {place.directory}/runs/{place.name}"
