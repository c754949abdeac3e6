"""The supervisor: one run on the cluster from its beginning to its end, with or without the bot.

A detached, named actor that holds no resources, on the head node. The bridge feeds it, asks it for
news and takes the result; whatever it is asked twice, it does once.
"""

from __future__ import annotations

import threading

from trainer.launchers.cluster.drive import Drive
from trainer.launchers.cluster.order import News, Order
from trainer.launchers.cluster.parcels import Part
from trainer.launchers.cluster.store import RunStore, State

KEEP_S = 24 * 3600.0
"""A result that nobody fetches for this long is deleted, as is an input that never becomes whole.
"""


class Supervisor:
    """A run's actor. Its methods run on several threads."""

    def __init__(self, run_id: str, base_sha256: str, order: Order) -> None:
        self._store = RunStore(run_id, base_sha256, order)
        self._drive = Drive(self._store, run_id, order)
        self._begun, self._ended, self._finished = (threading.Event() for _ in range(3))
        if self._store.state.begun:
            self._begun.set()
        threading.Thread(target=self._live, daemon=True, name="drive").start()

    def state(self) -> State:
        """Return where the run is."""
        return self._store.state

    def has_base(self) -> bool:
        """Say whether the run's base lies on this node already."""
        return self._store.has_base()

    def take(self, name: str, offset: int, data: bytes) -> None:
        """Take a piece of the input (`input/…`) or of the base (`base/…`)."""
        self._store.take(name, offset, data)

    def begin(
        self, parts: tuple[Part, ...], base: tuple[Part, ...], progress_from: int, log_from: int
    ) -> None:
        """Begin the run once everything has arrived. Raises TrainingError for damaged files."""
        self._store.begin(parts, base, progress_from, log_from)
        self._begun.set()

    def news(self, progress_at: int, log_at: int) -> News:
        """Return what came since these offsets."""
        return self._store.news(progress_at, log_at)

    def read(self, name: str, offset: int) -> bytes:
        """Return a piece of what is held here."""
        return self._store.read(name, offset)

    def cancel(self) -> None:
        """Stop the run and return once nothing of it is left on any node."""
        self._drive.cancel()
        if self._begun.is_set():
            self._ended.wait()

    def finish(self) -> None:
        """Delete what is held here: the bridge has it, or nobody wants it. Idempotent."""
        self.cancel()
        self._finished.set()
        self._store.close()

    def _live(self) -> None:
        if self._begun.wait(KEEP_S) and self._store.state.ending is None:
            self._store.end(self._drive.run())
        self._ended.set()
        if not self._finished.wait(KEEP_S):
            self.finish()
            _end_this_actor()


def _end_this_actor() -> None:
    import ray

    ray.kill(ray.get_runtime_context().current_actor, no_restart=True)
