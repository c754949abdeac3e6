"""What the cluster holds of one run: files in a private directory on the supervisor's node.

`input/` came in, `kept/` is what another node would go on from, `result/` came out; progress and
log of all attempts stand one after another, in whole lines. `state.json` is written before anything
is done that it speaks of, so a supervisor that was killed goes on where it was.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from core.files import advisory_lock, write_atomic
from core.jobs import LOG, PROGRESS, Progress
from core.records import utc_now
from trainer.launchers.cluster.bases import base_path, keep_base, kept_base
from trainer.launchers.cluster.guarded import GuardedDirectory
from trainer.launchers.cluster.order import CLUSTER, Cargo, Ending, News, Order, private_home
from trainer.launchers.cluster.parcels import (
    Part,
    Read,
    check,
    fetch,
    files_below,
    parts_of,
    read_piece,
    write_piece,
)

_GRACE_S = 60.0
"""A supervisor that Ray has not started anew after this long leaves nothing behind."""
_INPUT, _KEPT, _RESULT, _BASE, _INCOMING = "input", "kept", "result", "base", "incoming"
_STATE = "state.json"


class State(BaseModel):
    """Where a run is. Progress and log belong at `…_from` of the files at home."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    deadline: float
    base_sha256: str
    begun: bool = False
    progress_from: int = 0
    log_from: int = 0
    lost: int = 0
    input: tuple[Part, ...] = ()
    base: tuple[Part, ...] = ()
    kept: tuple[str, ...] = ()
    ending: Ending | None = None


class RunStore:
    """A run's files and state. Safe to use from several threads."""

    def __init__(self, run_id: str, base_sha256: str, order: Order) -> None:
        self._guarded = GuardedDirectory(private_home() / "runs" / run_id, grace_s=_GRACE_S)
        self._home = self._guarded.path
        self._held = advisory_lock(self._home / "lock")
        self._held.__enter__()  # until this process ends: the guard looks at it
        self._writing = threading.RLock()
        self._fraction = 0.0
        path = self._home / _STATE
        if path.exists():
            self.state = State.model_validate_json(path.read_bytes())
        else:
            self._set(State(deadline=time.time() + order.timeout_s, base_sha256=base_sha256))

    def _set(self, state: State) -> None:
        with self._writing:
            write_atomic(self._home / _STATE, state.model_dump_json())
            self.state = state

    def _change(self, **found: object) -> None:
        with self._writing:
            self._set(self.state.model_copy(update=found))

    # -- coming in

    def has_base(self) -> bool:
        """Say whether the run's base lies on this node already, whole."""
        return kept_base(self.state.base_sha256) is not None

    def take(self, name: str, offset: int, data: bytes) -> None:
        """Take a piece of `input/…` or `base/…`."""
        write_piece(self._home, name, offset, data)

    def begin(
        self, parts: tuple[Part, ...], base: tuple[Part, ...], progress_from: int, log_from: int
    ) -> None:
        """Check what came in. Idempotent; raises TrainingError for damaged files."""
        with self._writing:
            if self.state.begun:
                return
            check(self._home / _INPUT, parts)
            if base and not self.has_base():
                check(self._home / _BASE, base)
                keep_base(self.state.base_sha256, self._home / _BASE)
            where = {"progress_from": progress_from, "log_from": log_from}
            self._change(begun=True, input=parts, base=base, **where)

    # -- going on

    def cargo(self) -> Cargo:
        """Return what a worker needs."""
        kept = self._home / _KEPT
        return Cargo(self.state.input, parts_of(kept, files_below(kept)), self.state.base)

    def read(self, name: str, offset: int) -> bytes:
        """Return a piece of `input/…`, `kept/…`, `base/…` or `result/…`."""
        first, _, rest = name.partition("/")
        root = base_path(self.state.base_sha256) if first == _BASE else self._home / first
        return read_piece(root, rest, offset)

    def lose(self) -> int:
        """Count a lost node; return how many there were."""
        self._change(lost=self.state.lost + 1)
        return self.state.lost

    def keep(self, tree: str, parts: Iterable[Part], read: Read) -> None:
        """Keep a tree of a worker's job directory, whole or not at all."""
        incoming = self._home / _INCOMING
        shutil.rmtree(incoming, ignore_errors=True)
        fetch(incoming, parts, read)
        target = self._home / _KEPT / tree
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        (incoming / tree).rename(target)
        self._change(kept=(*self.state.kept, tree))

    def keep_only(self, trees: Iterable[str]) -> None:
        """Drop what the worker itself has dropped."""
        gone = set(self.state.kept) - set(trees)
        if gone:
            self._change(kept=tuple(tree for tree in self.state.kept if tree not in gone))
            for tree in gone:
                shutil.rmtree(self._home / _KEPT / tree, ignore_errors=True)

    def note(self, message: str) -> None:
        """Say something in the progress, and in the log."""
        line = Progress(
            at=utc_now(),
            stage=CLUSTER,
            step=0,
            steps=0,
            fraction=self._fraction,
            message=message,
        )
        self._append(PROGRESS, line.model_dump_json().encode() + b"\n")
        self._append(LOG, f"thumbtune: {message}\n".encode())

    def add_progress(self, data: bytes) -> int:
        """Append the whole lines; return how many bytes they were."""
        whole = data[: data.rfind(b"\n") + 1]
        if whole:
            self._fraction = Progress.model_validate_json(whole.splitlines()[-1]).fraction
            self._append(PROGRESS, whole)
        return len(whole)

    def add_log(self, data: bytes) -> int:
        """Append to the log; return how many bytes it was."""
        self._append(LOG, data)
        return len(data)

    def _append(self, name: str, data: bytes) -> None:
        with self._writing, (self._home / name).open("ab") as file:
            file.write(data)

    # -- going out

    def fetch_result(self, parts: tuple[Part, ...], read: Read) -> None:
        """Fetch what the job made."""
        fetch(self._home / _RESULT, parts, read)

    def end(self, ending: Ending) -> None:
        """Keep how the run ended; people's words are not needed any more."""
        self._change(ending=ending, kept=())
        for name in (_INPUT, _KEPT, _INCOMING):
            shutil.rmtree(self._home / name, ignore_errors=True)

    def news(self, progress_at: int, log_at: int) -> News:
        """Return what came since these offsets; with an ending, everything has come."""
        ending = self.state.ending
        return News(self._from(PROGRESS, progress_at), self._from(LOG, log_at), ending)

    def _from(self, name: str, offset: int) -> bytes:
        path = self._home / name
        return read_piece(self._home, name, offset) if path.exists() else b""

    def close(self) -> None:
        """Delete everything. Idempotent."""
        self._guarded.close()
