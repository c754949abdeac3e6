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
from collections.abc import Callable, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from core.errors import RunElsewhere, TrainingError
from core.files import sha256_file
from core.jobs import EVAL, JOB, LOG, REPORT, TRAIN, JobSpec, elsewhere_file, read_spec
from core.manifest import CONTENT_FILES, MANIFEST
from core.sections import LauncherSettings
from trainer.launchers.base import job_variables, log_tail
from trainer.launchers.connection import SILENT_S, Connection
from trainer.launchers.elsewhere import (
    Elsewhere,
    left_elsewhere,
    read_elsewhere,
    write_elsewhere,
)
from trainer.launchers.far import RESULTS
from trainer.launchers.faults import Refused, Unreachable
from trainer.launchers.mirror import ProgressMirror
from trainer.launchers.parcel import Parcel, base_files, code_parcel
from trainer.launchers.patience import Patience, Persistence
from trainer.launchers.results import INCOMING, publish_results, verified
from trainer.launchers.ssh_check import Look, look

log = logging.getLogger(__name__)
RESTARTS = 3
"""How often a job that died there without a word is gone on with, in one attempt."""
_SAY_EVERY_S = 1.0
_HASHING_S = 3600.0


class _Identity(BaseModel):
    path: str
    sha256: str
    why: str


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
        waiting = partial(self._mirror.note, "waiting")
        self._insist = Persistence(connection, patience, waiting).insist

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
        spec = read_spec(self.directory)
        code = await asyncio.to_thread(code_parcel)
        version = code.sha256[:16]
        sent = "" if self._settings.base else spec.base_sha256
        await self._insist(lambda: self._ask("prepare", code=version, base=sent))
        await self._send(code, f"{found.root}/code/{version}", "the code")
        base = await self._base(spec, found.root, version)
        run = f"{found.root}/runs/{self.name}"
        arguments = ["--base", base, "--threads", str(self._settings.threads)]
        if spec.live_path:
            live = Parcel(Path(spec.live_path), (*CONTENT_FILES, MANIFEST), "")
            await self._send(live, f"{run}/live", "the live adapter")
            arguments += ["--live", f"{run}/live"]
        await self._send(Parcel(self.directory, (JOB, TRAIN, EVAL), ""), f"{run}/job", "the data")
        await self._insist(
            lambda: self._ask(
                "start",
                code=version,
                timeout_s=self._timeout_s,
                variables=job_variables(self._settings.threads),
                arguments=[*arguments, *self._arguments],
            )
        )

    async def _base(self, spec: JobSpec, root: str, code: str) -> str:
        """Return where the base model lies there, proven to be the one that the job is for."""
        own = self._settings.base
        there = own or f"{root}/base/{spec.base_sha256}"
        found = await self._identify(there, code)
        if found.sha256 != spec.base_sha256 and not own:
            here = Path(spec.base_path)
            parcel = Parcel(here, base_files(here), spec.base_sha256)
            await self._send(parcel, there, "the base model")
            found = await self._identify(there, code)
        if found.sha256 == spec.base_sha256:
            return found.path
        is_what = found.why or f"SHA-256 {found.sha256[:12]}…"
        todo = (
            "correct launcher.base, or leave it empty and the right one is sent"
            if own
            else f"{spec.base_path} has changed since the run began; start a new run"
        )
        raise TrainingError(
            f"{self.host}: {found.path} is another base model ({is_what}, expected "
            f"{spec.base_sha256[:12]}…), which the adapter would not fit; {todo}"
        )

    async def _identify(self, base: str, code: str) -> _Identity:
        self._say("start", "checking the base model there")
        answer = await self._insist(
            lambda: self._ask("identify", silent_s=_HASHING_S, base=base, code=code)
        )
        return _Identity.model_validate(answer)

    async def _send(self, parcel: Parcel, target: str, what: str) -> None:
        tell = self._percents("sending", f"sending {what}")
        await self._insist(lambda: self._connection.send(parcel.root, parcel.files, target, tell))

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
        tell = self._percents("fetch", "bringing the results back")
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

    def _percents(self, stage: str, what: str) -> Callable[[int], None]:
        """Return what tells a share at most once a second."""
        clock = asyncio.get_running_loop().time
        last_at, last = float("-inf"), -1

        def tell(percent: int) -> None:
            nonlocal last_at, last
            due = percent == 100 or clock() - last_at >= _SAY_EVERY_S
            if percent != last and due:
                last_at, last = clock(), percent
                self._say(stage, f"{what}, {percent} %")

        return tell

    def _out_of_reach(self, error: TrainingError) -> RunElsewhere:
        return RunElsewhere(
            f"{error}; what is there stays, and a run that was started goes on there. Take it up "
            f"again with: thumbtune retrain --resume {self.directory.name}"
        )


def _stays(place: Elsewhere) -> str:
    return f"what is on {place.host} stays there, in {place.directory}/runs/{place.name}"
