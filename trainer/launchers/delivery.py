"""Send a job what it needs on the other machine, what differs of it, and prove the base there.

Every step may be done again; what is there already is not sent. The data, people's words, goes
last: nothing of it leaves before the machine is known to hold the right base.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from core.errors import TrainingError
from core.jobs import EVAL, JOB, TRAIN, JobSpec, read_spec
from core.manifest import CONTENT_FILES, MANIFEST
from trainer.launchers.connection import Connection
from trainer.launchers.mirror import ProgressMirror
from trainer.launchers.parcel import Parcel, base_files, code_parcel
from trainer.launchers.patience import Persistence

_HASHING_S = 3600.0
"""A large base on a slow disk is read for this long at most."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """The version of the code that is there, and what `trainer.job` is told of the place."""

    code: str
    arguments: tuple[str, ...]


class _Identity(BaseModel):
    path: str
    sha256: str
    why: str


class Delivery:
    """Sends one job directory's needs over one connection."""

    def __init__(
        self,
        directory: Path,
        name: str,
        connection: Connection,
        persistence: Persistence,
        mirror: ProgressMirror,
        *,
        own_base: str,
    ) -> None:
        self._directory = directory
        self._name = name
        self._connection = connection
        self._insist = persistence.insist
        self._mirror = mirror
        self._own_base = own_base

    async def deliver(self, root: str) -> Delivered:
        """Make everything be there, below `root`. Raises TrainingError for another base."""
        spec = read_spec(self._directory)
        code = await asyncio.to_thread(code_parcel)
        version = code.sha256[:16]
        sent = "" if self._own_base else spec.base_sha256
        await self._insist(
            lambda: self._connection.ask("prepare", name=self._name, code=version, base=sent)
        )
        await self._send(code, f"{root}/code/{version}", "the code")
        arguments = ["--base", await self._base(spec, root, version)]
        run = f"{root}/runs/{self._name}"
        if spec.live_path:
            live = Parcel(Path(spec.live_path), (*CONTENT_FILES, MANIFEST), "")
            await self._send(live, f"{run}/live", "the live adapter")
            arguments += ["--live", f"{run}/live"]
        await self._send(Parcel(self._directory, (JOB, TRAIN, EVAL), ""), f"{run}/job", "the data")
        return Delivered(version, tuple(arguments))

    async def _base(self, spec: JobSpec, root: str, code: str) -> str:
        """Return where the base model lies there, proven to be the one that the job is for."""
        there = self._own_base or f"{root}/base/{spec.base_sha256}"
        found = await self._identify(there, code)
        if found.sha256 != spec.base_sha256 and not self._own_base:
            here = Path(spec.base_path)
            parcel = Parcel(here, base_files(here), spec.base_sha256)
            await self._send(parcel, there, "the base model")
            found = await self._identify(there, code)
        if found.sha256 != spec.base_sha256:
            raise self._other_base(spec, found)
        return found.path

    async def _identify(self, base: str, code: str) -> _Identity:
        self._mirror.note("start", "checking the base model there")
        answer = await self._insist(
            lambda: self._connection.ask("identify", silent_s=_HASHING_S, base=base, code=code)
        )
        return _Identity.model_validate(answer)

    async def _send(self, parcel: Parcel, target: str, what: str) -> None:
        tell = self._mirror.percents("sending", f"sending {what}")
        await self._insist(lambda: self._connection.send(parcel.root, parcel.files, target, tell))

    def _other_base(self, spec: JobSpec, found: _Identity) -> TrainingError:
        is_what = found.why or f"SHA-256 {found.sha256[:12]}…"
        todo = (
            "correct launcher.base, or leave it empty and the right one is sent"
            if self._own_base
            else f"{spec.base_path} has changed since the run began; start a new run"
        )
        return TrainingError(
            f"{self._connection.address.host}: {found.path} is another base model ({is_what}, "
            f"expected {spec.base_sha256[:12]}…), which the adapter would not fit; {todo}"
        )
