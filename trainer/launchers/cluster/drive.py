"""Drive one run over the nodes of a cluster: place a worker, feed it, keep what it finishes.

A lost node is not the run's end: the next worker goes on from what was kept. Everything else is:
an input that cannot be used or too little memory would end the same way elsewhere.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import Any

import ray
from ray.exceptions import (
    ActorUnavailableError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from trainer.faults import EXIT_FAILED, EXIT_MEMORY, EXIT_STOPPED
from trainer.launchers.cluster.order import (
    EXIT_CLUSTER,
    EXIT_LOST,
    EXIT_TIMEOUT,
    Ending,
    Order,
)
from trainer.launchers.cluster.store import RunStore
from trainer.launchers.cluster.worker import Worker

_POLL_S = 0.3
_KILLED = (EXIT_STOPPED, -signal.SIGTERM)
"""A job that somebody else stopped: a node that shuts down does so before it is lost."""
_PATIENCE_S = 5.0
"""Waiting for a place for longer than this is said."""
_STOP_S = 30.0
_NOTICE_S = 3.0
"""How long Ray may take to know that a node is lost when its worker is."""


class Drive:
    """One run's way to its end. `run` belongs to one thread, `cancel` to any."""

    def __init__(self, store: RunStore, run_id: str, order: Order) -> None:
        self._store = store
        self._run_id = run_id
        self._order = order
        self._cancelled = threading.Event()
        self._node = ("", "")

    def cancel(self) -> None:
        """Ask the run to stop."""
        self._cancelled.set()

    def run(self) -> Ending:
        """Return how the run ended; nothing of it is left on any node then."""
        while True:
            try:
                return self._attempt()
            except _Over as over:
                return over.ending
            except _Lost:
                lost, what = self._store.lose(), self._what_was_lost()
                if lost > self._order.retries:
                    sentence = f"{what}; it was the last of {lost} (launcher.ray_retries)"
                    return Ending(code=EXIT_LOST, sentence=sentence)
                self._store.note(f"{what}; going on on another")
            except Exception as error:  # whatever it is, the run must not hang
                kind = type(error).__name__
                return Ending(code=EXIT_FAILED, sentence=f"the supervisor failed: {error} ({kind})")

    def _attempt(self) -> Ending:
        self._node = ("", "")
        worker = self._hire()
        try:
            self._place(worker)
            this = ray.get_runtime_context().current_actor
            refused = self._ask(worker.prepare, self._store.cargo(), this)
            if refused is not None:
                return Ending.model_validate(refused)
            self._ask(worker.start)
            return self._follow(worker)
        finally:
            self._dismiss(worker)

    def _hire(self) -> Any:
        order = self._order
        memory = {"memory": order.memory_bytes} if order.memory_bytes else {}
        hired = ray.remote(Worker).options(
            num_gpus=order.gpus, num_cpus=order.cpus, max_restarts=0, max_concurrency=4, **memory
        )
        return hired.remote(self._run_id, order)

    def _place(self, worker: Any) -> None:
        """Wait until the worker has its node."""
        where = worker.node.remote()
        if not ray.wait([where], timeout=_PATIENCE_S)[0]:
            self._store.note(f"waiting for a node with {self._order.asked()} to be free")
        self._node = self._answer(where)
        self._store.note(f"on node {self._node[1]}")

    def _follow(self, worker: Any) -> Ending:
        progress_at = log_at = 0
        while True:
            seen = self._ask(worker.look, progress_at, log_at)
            progress_at += self._store.add_progress(seen.progress)
            log_at += self._store.add_log(seen.log)
            if seen.code == 0:
                return self._bring(worker)
            if seen.code in _KILLED:
                raise _Lost
            if seen.code is not None:
                return Ending(code=seen.code)
            self._keep(worker, seen.trees)
            self._pause()

    def _keep(self, worker: Any, trees: tuple[str, ...]) -> None:
        for tree in trees:
            if tree in self._store.state.kept:
                continue
            try:
                parts = self._ask(worker.parts, tree)
                if parts:
                    self._store.keep(tree, parts, lambda name, at: self._ask(worker.read, name, at))
            except FileNotFoundError:
                return  # a newer checkpoint has taken its place meanwhile
        self._store.keep_only(trees)

    def _bring(self, worker: Any) -> Ending:
        parts = self._ask(worker.result)
        self._store.fetch_result(parts, lambda name, at: self._ask(worker.read, name, at))
        return Ending(code=0, result=parts)

    def _dismiss(self, worker: Any) -> None:
        if self._node[0]:
            with contextlib.suppress(RayError):  # it is gone, and its guard cleans up
                ray.get(worker.stop.remote(), timeout=_STOP_S)
        ray.kill(worker)

    def _ask(self, method: Any, *arguments: Any) -> Any:
        """Call a method of the worker, again where the line to it was broken for a moment."""
        while True:
            try:
                return self._answer(method.remote(*arguments))
            except ActorUnavailableError:
                self._pause()

    def _answer(self, reference: Any) -> Any:
        """Wait for an answer, unless the run is over first."""
        while not ray.wait([reference], timeout=_POLL_S)[0]:
            self._check_time()
        try:
            return ray.get(reference)
        except ActorUnavailableError:
            raise
        except OutOfMemoryError as error:
            raise _Over(EXIT_MEMORY, f"out of memory on node {self._node[1]}: {error}") from error
        except (RayActorError, NodeDiedError, WorkerCrashedError, ObjectLostError) as error:
            if "low on memory" in str(error):
                sentence = f"out of memory on node {self._node[1]}; lower training.batch_size"
                raise _Over(EXIT_MEMORY, sentence) from error
            raise _Lost from error
        except RayTaskError as error:
            if isinstance(error.cause, FileNotFoundError):
                raise error.cause from error
            raise _Over(EXIT_FAILED, f"on node {self._node[1]}: {error.cause}") from error
        except RayError as error:
            raise _Over(EXIT_CLUSTER, f"Ray could not start the run: {error}") from error

    def _pause(self) -> None:
        self._cancelled.wait(_POLL_S)
        self._check_time()

    def _check_time(self) -> None:
        if self._cancelled.is_set():
            raise _Over(EXIT_STOPPED, "cancelled")
        if time.time() > self._store.state.deadline:
            minutes = self._order.timeout_s / 60
            waited = "" if self._node[0] else f"; it waited for a node with {self._order.asked()}"
            raise _Over(
                EXIT_TIMEOUT,
                f"the run took longer than {minutes:.0f} minutes (training.timeout_minutes) "
                f"and was stopped{waited}",
            )

    def _what_was_lost(self) -> str:
        node, address = self._node
        if not node:
            return "a node was lost before it began"
        until = time.monotonic() + _NOTICE_S
        while time.monotonic() < until:
            if not any(found["NodeID"] == node and found["Alive"] for found in ray.nodes()):
                return f"node {address} was lost"
            time.sleep(_POLL_S)
        return f"the run's process on node {address} was killed"


class _Lost(Exception):
    """The worker or its node is gone."""


class _Over(Exception):
    """The run is over, and this is how."""

    def __init__(self, code: int, sentence: str) -> None:
        self.ending = Ending(code=code, sentence=sentence)
        super().__init__(sentence)
