"""The worker: runs a job on the node where Ray gave it a GPU, in a process that is not Ray's own.

An actor. It holds its place for the time of the run and has a directory that vanishes with it,
however it ends. It decides nothing: the supervisor asks it to prepare, start and stop, and takes
from it what comes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.basemodel import identify_base
from core.errors import ModelError, ThumbtuneError
from core.jobs import ADAPTER, LOG, PROGRESS, REPORT, JobSpec, read_spec
from trainer.faults import EXIT_DISK, EXIT_INPUT
from trainer.job import POOLS, WORK
from trainer.launchers.base import job_variables
from trainer.launchers.cluster.bases import fetch_base
from trainer.launchers.cluster.guarded import GuardedDirectory
from trainer.launchers.cluster.order import LIVE, Cargo, Ending, Order, private_home
from trainer.launchers.cluster.parcels import (
    Part,
    fetch,
    files_below,
    parts_of,
    read_piece,
)

_STOP_S = 15.0
_SEAL = "seal.json"
_SCRATCH = ".scratch"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a worker has to tell: bytes since last time, trees worth keeping, an exit code."""

    progress: bytes
    log: bytes
    trees: tuple[str, ...]
    code: int | None


class Worker:
    """One attempt at one run. Its methods run on threads of the actor; only `stop` may overlap."""

    def __init__(self, run_id: str, order: Order) -> None:
        self._order = order
        self._home = GuardedDirectory(private_home() / "work" / f"{run_id}.{os.getpid()}")
        self._job = self._home.path / "job"
        self._base = Path(order.base)
        self._process: subprocess.Popen[bytes] | None = None

    def node(self) -> tuple[str, str]:
        """Return this node's id and address."""
        import ray.util

        return ray.get_runtime_context().get_node_id(), str(ray.util.get_node_ip_address())

    def prepare(self, cargo: Cargo, supervisor: Any) -> Ending | None:
        """Bring everything here and check it; an Ending says why the run cannot be."""
        import ray

        def read(name: str, offset: int) -> bytes:
            return bytes(ray.get(supervisor.read.remote(name, offset)))

        try:
            fetch(self._job, cargo.input, lambda name, at: read(f"input/{name}", at))
            fetch(self._job, cargo.kept, lambda name, at: read(f"kept/{name}", at))
            spec = read_spec(self._job)
            if not self._order.base:
                self._base = fetch_base(
                    spec.base_sha256, cargo.base, lambda name, at: read(f"base/{name}", at)
                )
            self._check_base(spec)
        except OSError as error:
            return Ending(code=EXIT_DISK, sentence=f"node {self.node()[1]}: {error}")
        except ThumbtuneError as error:
            return Ending(code=EXIT_INPUT, sentence=f"node {self.node()[1]}: {error}")
        return None

    def _check_base(self, spec: JobSpec) -> None:
        """An adapter fits the very weights it was trained on, so no other base is trained on."""
        found = identify_base(spec.base_model, self._base, private_home()).sha256
        if found != spec.base_sha256:
            raise ModelError(
                f"{self._base}: not the base model that the bot speaks with: its SHA-256 is "
                f"{found}, expected {spec.base_sha256}; copy the bot's own files there"
            )

    def start(self) -> None:
        """Start `python -m trainer.job --resume`. Idempotent."""
        if self._process is not None:
            return
        spec = read_spec(self._job)
        arguments = ["--resume", "--parent", str(os.getpid()), "--base", str(self._base)]
        arguments += ["--threads", str(self._order.threads)]
        if spec.live_path:
            arguments += ["--live", str(self._job / LIVE)]
        if spec.device != "cpu":
            arguments += ["--device", "auto"]  # the bot's numbering means nothing here
        command = [sys.executable, "-m", "trainer.job", str(self._job)]
        self._process = self._home.start(
            [*command, *arguments, *self._order.arguments],
            _environment(self._order.threads),
            self._job / LOG,
        )

    def look(self, progress_at: int, log_at: int) -> Seen:
        """Return what came since these offsets."""
        code = None if self._process is None else self._process.poll()
        return Seen(
            progress=_since(self._job / PROGRESS, progress_at),
            log=_since(self._job / LOG, log_at),
            trees=worth_keeping(self._job),
            code=code,
        )

    def parts(self, tree: str) -> tuple[Part, ...]:
        """List the files of a tree, or the one file, with their hashes."""
        path = self._job / tree
        return parts_of(self._job, [path] if path.is_file() else files_below(path))

    def result(self) -> tuple[Part, ...]:
        """List what the job made: the adapter and the report."""
        return self.parts(ADAPTER) + self.parts(REPORT)

    def read(self, name: str, offset: int) -> bytes:
        """Return a piece of a file of the job directory."""
        return read_piece(self._job, name, offset)

    def stop(self) -> None:
        """End the job and all it started, and remove the directory. Idempotent."""
        if self._process is not None:
            self._home.end(self._process, _STOP_S)
        self._home.close()


def worth_keeping(job: Path) -> tuple[str, ...]:
    """Name the trees of a job directory that another node could go on from; none ever changes.

    Finished stages, what was ranked, the adapter, and the newest sealed checkpoint of the stage
    that is being trained.
    """
    found = [ADAPTER] if (job / ADAPTER).is_dir() else []
    for path in sorted((job / WORK).glob("[!.]*")):
        if not path.name.endswith(_SCRATCH):
            found.append(f"{WORK}/{path.name}")
        elif sealed := sorted(path.glob(f"checkpoint-*/{_SEAL}"), key=_step):
            found.append(f"{WORK}/{path.name}/{sealed[-1].parent.name}")
    return tuple(found)


def _step(seal: Path) -> int:
    number = seal.parent.name.removeprefix("checkpoint-")
    return int(number) if number.isdigit() else -1


def _since(path: Path, offset: int) -> bytes:
    if not path.exists():
        return b""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read()


def _environment(threads: int) -> dict[str, str]:
    """Return the job's environment: Ray's GPUs, not its guess at threads."""
    mine = {name: value for name, value in os.environ.items() if name not in POOLS}
    code = str(Path(__file__).resolve().parents[3])
    paths = [code, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**mine, **job_variables(threads), "PYTHONPATH": os.pathsep.join(paths)}
