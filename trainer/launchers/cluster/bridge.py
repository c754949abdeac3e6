"""`python -m trainer.launchers.cluster.bridge DIR ORDER`: one run, between a job directory and Ray.

A process of its own: Ray ends the process that uses it when a cluster is lost. It finds the run's
supervisor or begins one, copies what comes into the directory, and says on standard output, in one
JSON line each, when the run is in the cluster's hands and how it ended. `cancel` on standard input
ends the run; the end of standard input, as when the bot dies, leaves it running.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from core.basemodel import base_files
from core.errors import ThumbtuneError, TrainingError
from core.jobs import EVAL, JOB, REPORT, TRAIN, read_spec
from trainer.faults import EXIT_STOPPED
from trainer.launchers.cluster.connect import check_capacity, connect, head_node
from trainer.launchers.cluster.home import Home
from trainer.launchers.cluster.order import (
    CANCEL,
    EXIT_AWAY,
    EXIT_CLUSTER,
    LIVE,
    NAMESPACE,
    Away,
    Ending,
    Message,
    Order,
)
from trainer.launchers.cluster.parcels import Part, offsets, parts_of, read_piece
from trainer.launchers.cluster.supervisor import Supervisor

_POLL_S = 0.3
_ANSWER_S = 60.0
"""A supervisor that does not answer for this long is taken for unreachable."""
_PLACE_S = 120.0
"""A new supervisor needs a worker process of Ray's, and the code there."""
_STOP_S = 60.0
_GONE_S = 30.0
_RESTARTS = 5


class _Cancelled(Exception):
    """The bot wants the run stopped."""


class _Left(BaseException):
    """The bot is gone or has let go: the run is the cluster's."""


class Ear:
    """What the bot says, heard on a thread of its own."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self._left = threading.Event()
        threading.Thread(target=self._listen, daemon=True, name="ear").start()

    def check(self) -> None:
        """Raise _Left or _Cancelled once the bot has said so."""
        if self._left.is_set():
            raise _Left
        if self.cancelled.is_set():
            raise _Cancelled

    def _listen(self) -> None:
        while said := os.read(0, 64):  # not sys.stdin, whose lock a thread may not die with
            if CANCEL.encode() in said:
                self.cancelled.set()
        self._left.set()


class Bridge:
    """One run's bridge."""

    def __init__(self, directory: Path, order: Order, ear: Ear) -> None:
        self._home = Home(directory)
        self._directory = directory
        self._order = order
        self._ear = ear
        self._spec = read_spec(directory)
        self._name = f"thumbtune-{self._spec.run_id}"
        self._actor: Any = None

    def run(self, say: Callable[[Message], None]) -> Ending:
        """Bring the run home. Raises TrainingError, and Away where the line to it broke."""
        if (self._directory / REPORT).exists():
            return self._finish()
        connect(self._order.address)
        try:
            self._ear.check()
            self._actor = self._find() or self._begin()
            self._ask("state")
            say(Message(event="taken"))
            ending = self._bring()
        except (Away, ConnectionError, RayError):
            raise  # the run may well go on
        except (ThumbtuneError, OSError):
            self._forget(self._actor)
            raise
        except _Cancelled:
            ending = Ending(code=EXIT_STOPPED, sentence="cancelled")
        self._forget(self._actor or self._find())
        return ending

    def _finish(self) -> Ending:
        """Everything is here already; what lies over there goes now, or a day later by itself."""
        with contextlib.suppress(TrainingError):
            connect(self._order.address)
            self._forget(self._find())
        return Ending(code=0)

    def _bring(self) -> Ending:
        state = self._ask("state")
        if not state.begun:
            self._send()
            state = self._ask("state")
        ending = self._follow(state.progress_from, state.log_from)
        if ending.code == 0:
            self._home.take(ending.result, lambda name, at: bytes(self._ask("read", name, at)))
        return ending

    def _find(self) -> Any:
        try:
            return ray.get_actor(self._name, namespace=NAMESPACE)
        except ValueError:
            return None

    def _begin(self) -> Any:
        """Make the supervisor, or find the one that somebody made meanwhile."""
        check_capacity(self._order)
        made = ray.remote(Supervisor).options(
            name=self._name,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_concurrency=16,
            max_restarts=_RESTARTS,
            scheduling_strategy=NodeAffinitySchedulingStrategy(head_node(), soft=False),
        )
        actor = made.remote(self._spec.run_id, self._spec.base_sha256, self._order)
        try:
            self._answer(actor.state.remote(), _PLACE_S)
        except Away as error:
            ray.kill(actor, no_restart=True)
            raise TrainingError(f"Ray could not start the run's supervisor: {error}") from error
        return actor

    def _send(self) -> None:
        """Give the supervisor the input and, unless the nodes have it, the base."""
        parts = self._input()
        self._push("input", parts)
        base: tuple[Part, ...] = ()
        if not self._order.base:
            root = Path(self._spec.base_path)
            base = parts_of(root, base_files(root))
            if not self._ask("has_base", limit_s=_STOP_S * 10):
                self._push("base", {root / part.name: part for part in base})
        where = self._home.sizes()
        self._ask("begin", tuple(parts.values()), base, *where, limit_s=_STOP_S * 10)

    def _input(self) -> dict[Path, Part]:
        """List what goes in: the three files as they lie here, the live adapter below `live/`."""
        files = [self._directory / name for name in (JOB, TRAIN, EVAL)]
        found = dict(zip(files, parts_of(self._directory, files), strict=True))
        if self._spec.live_path:
            root = Path(self._spec.live_path)
            adapter = sorted(path for path in root.iterdir() if path.is_file())
            for path, part in zip(adapter, parts_of(root, adapter), strict=True):
                found[path] = part.model_copy(update={"name": f"{LIVE}/{part.name}"})
        return found

    def _push(self, kind: str, parts: dict[Path, Part]) -> None:
        for path, part in parts.items():
            for offset in offsets(part):
                piece = read_piece(path.parent, path.name, offset)
                self._ask("take", f"{kind}/{part.name}", offset, piece)

    def _follow(self, progress_from: int, log_from: int) -> Ending:
        """Copy progress and log as they come until the run has ended."""
        while True:
            news = self._ask("news", *self._home.offsets(progress_from, log_from))
            self._home.add(news.progress, news.log)
            if news.progress or news.log:
                continue
            if news.ending is not None:
                return Ending.model_validate(news.ending)
            self._ear.cancelled.wait(_POLL_S)

    def _forget(self, actor: Any) -> None:
        """Let the supervisor clean up behind the run, and wait until it is gone."""
        if actor is None:
            return
        with contextlib.suppress(RayError):  # it died; then its guards clean up
            ray.get(actor.finish.remote(), timeout=_STOP_S)
        ray.kill(actor, no_restart=True)
        until = time.monotonic() + _GONE_S
        while self._find() is not None and time.monotonic() < until:
            time.sleep(_POLL_S)

    def _ask(self, method: str, *arguments: Any, limit_s: float = _ANSWER_S) -> Any:
        """Call the supervisor."""
        return self._answer(getattr(self._actor, method).remote(*arguments), limit_s)

    def _answer(self, reference: Any, limit_s: float) -> Any:
        until = time.monotonic() + limit_s
        while not ray.wait([reference], timeout=_POLL_S)[0]:
            self._ear.check()
            if time.monotonic() > until:
                raise Away(f"the cluster did not answer for {limit_s:.0f} s")
        self._ear.check()
        try:
            return ray.get(reference)
        except RayTaskError as error:
            if isinstance(error.cause, ThumbtuneError):
                raise error.cause from error
            raise TrainingError(f"on the head node: {error.cause}") from error
        except RayError as error:
            raise Away(f"the run's supervisor is out of reach: {error}") from error


def main(directory: Path, order: Order, say: Callable[[Message], None]) -> None:
    """Bridge one run and say how it ended."""
    try:
        ending = Bridge(directory, order, Ear()).run(say)
    except _Left:
        return
    except Away as error:
        ending = Ending(code=EXIT_AWAY, sentence=str(error))
    except (ConnectionError, RayError) as error:
        ending = Ending(code=EXIT_AWAY, sentence=f"the line to the cluster broke: {error}")
    except _Cancelled:
        ending = Ending(code=EXIT_STOPPED, sentence="cancelled")
    except (ThumbtuneError, OSError) as error:
        ending = Ending(code=EXIT_CLUSTER, sentence=str(error))
    say(Message(event="ended", ending=ending))


def _voice() -> Callable[[Message], None]:
    """Return how to speak on standard output, where nobody else may: what Ray prints is moved."""
    line = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(message: Message) -> None:
        with contextlib.suppress(BrokenPipeError):
            print(message.model_dump_json(), file=line, flush=True)

    return say


if __name__ == "__main__":
    main(Path(sys.argv[1]), Order.model_validate_json(sys.argv[2]), _voice())
