"""What a run asks of a cluster, and how it ended there: the words the three processes share.

Knows neither Ray nor torch.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from core.errors import TrainingError
from trainer.launchers.cluster.parcels import Part

EXIT_LOST = 70
"""More nodes were lost than `launcher.ray_retries` allows."""
EXIT_TIMEOUT = 71
EXIT_CLUSTER = 72
"""The cluster cannot be used: not there, another version, too small."""
EXIT_AWAY = 75
"""The connection broke; the run goes on, and the bridge may be started again."""
NAMESPACE = "thumbtune"
LIVE = "live"
"""Where the live adapter lies in the job directory over there."""
CLUSTER = "cluster"
"""The stage under which the cluster itself speaks in the progress."""
CANCEL = "cancel"
"""What the launcher says to the bridge to have the run ended."""


class Away(TrainingError):
    """The cluster is out of reach; the run may well go on there."""


class Order(BaseModel):
    """What one run asks of a cluster."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str
    gpus: float
    memory_gb: float
    retries: int
    base: str
    threads: int
    timeout_s: float
    arguments: tuple[str, ...] = ()

    @property
    def cpus(self) -> int:
        """Return the cores Ray sets aside."""
        return max(1, self.threads)

    @property
    def memory_bytes(self) -> int:
        """Return the memory Ray sets aside."""
        return int(self.memory_gb * 1e9)

    def asked(self) -> str:
        """Say in words what a node must have."""
        cores = f"{self.cpus} CPU core" + ("s" if self.cpus > 1 else "")
        memory = f" and {self.memory_gb:g} GB of memory" if self.memory_gb else ""
        return f"{self.gpus:g} GPU, {cores}{memory}"


class Ending(BaseModel):
    """How a run ended: an exit code of the job or of the cluster, a sentence, and what it made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: int
    sentence: str = ""
    result: tuple[Part, ...] = ()


class Message(BaseModel):
    """What the bridge says to the launcher: the cluster has the run, or how it ended."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    event: Literal["taken", "ended"]
    ending: Ending | None = None


@dataclass(frozen=True, slots=True)
class Cargo:
    """What a worker needs: the job's input, what was kept of earlier attempts, the base if sent."""

    input: tuple[Part, ...]
    kept: tuple[Part, ...]
    base: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class News:
    """What came since somebody last asked: whole lines of progress, bytes of the log, the end."""

    progress: bytes
    log: bytes
    ending: Ending | None


def private_home() -> Path:
    """Return this node's directory for runs and bases, readable by this user alone.

    It lies in the temporary directory (TMPDIR) that the node's Ray was started with.
    """
    home = Path(tempfile.gettempdir()) / f"thumbtune-ray-{os.getuid()}"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = home.lstat()
    if home.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{home}: belongs to somebody else or is open to others; remove it")
    return home
