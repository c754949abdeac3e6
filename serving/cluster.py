"""The way to Ray: connecting, putting replicas and roster up, taking them down, calling them.

The only module that speaks Ray; it turns Ray's errors into ours. Loads no torch: a replica does,
where it runs. What blocks is done in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import AutoscalingConfig
from ray.serve.exceptions import RayServeException

from core.errors import EngineStopped, ModelError
from core.processors import available_cores
from serving.replica import Replica
from serving.replica_reply import ReplicaLost
from serving.roster import LEASE_S, Roster
from serving.wire import Answer, Ask, ReplicaSpec

NAMESPACE = "thumbtune"
DEPLOYMENT = "Replica"
POLL_S = 0.2
CALL_S = 15.0
"""How long the roster may take to answer what needs no waiting."""
PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Before the roster is called again: one that was lost is back by then, on a busy machine too."""
DRAIN_S = 15.0
"""How much longer than the longest reply a replica may take to leave."""
OBJECTS_BYTES = 256 * 2**20
"""Room for what passes through a Ray of our own: adapters on their way."""
REPORT_S = 1.0
"""How often Serve hears how many replies each replica has."""
_SHIPPED = ("core", "serving")
_FAULTS = (RayError, RayServeException)


class Cluster:
    """The replicas of one specification on one Ray, as the bot `owner` sees them."""

    def __init__(self, spec: ReplicaSpec, owner: str) -> None:
        self.identity = spec.identity()
        self._spec, self._owner, self._app = spec, owner, spec.replicas.app
        self._roster: Any = None
        self._handle: Any = None
        self._connected = False
        self._place = ""

    # -- life

    async def open(self) -> None:
        """Join the Ray, find our replicas or put them up; return once they take requests.

        Replicas of another kind under the same name are replaced, unless another bot uses them.
        Raises ModelError.
        """
        with _told_as(ModelError):
            if not ray.is_initialized():
                self._place = "" if self._spec.replicas.address else tempfile.mkdtemp(prefix="tt-")
                await asyncio.to_thread(_connect, self._spec, self._place)
                self._connected = True
            found = await asyncio.to_thread(_found_roster, self._app)
            if found is not None and await self._fits(found):
                self._roster = found
            else:
                await self._replace(found)
            await self._until_running()
            handle = await asyncio.to_thread(serve.get_deployment_handle, DEPLOYMENT, self._app)
            self._handle = handle.options(stream=True, method_name="write")

    async def close(self) -> None:
        """Go. The last bot takes the replicas down, unless they are to be kept. Idempotent."""
        with contextlib.suppress(*_FAULTS, TimeoutError, EngineStopped):
            if self._roster is not None:
                await self.call("depart", self._owner)
                if not (self._spec.replicas.keep or await self._used(self._roster)):
                    await asyncio.to_thread(_take_down, self._app)
        self._roster = self._handle = None
        if self._connected:
            self._connected = False
            await asyncio.to_thread(ray.shutdown)
        if self._place:
            await asyncio.to_thread(shutil.rmtree, self._place, ignore_errors=True)

    async def _fits(self, roster: Any) -> bool:
        """Say whether what runs there is what we would put up."""
        try:
            async with asyncio.timeout(CALL_S):
                same = await roster.identity.remote() == self.identity
        except (RayError, TimeoutError):
            return False
        return same and await asyncio.to_thread(_status, self._app) not in ("", *_FAILED)

    async def _replace(self, roster: Any) -> None:
        """Put ours up in place of what runs under this name. Raises ModelError if that is used."""
        if roster is not None and await self._used(roster):
            raise ModelError(
                f"the replicas {self._app!r} run with another base or other settings, and another "
                "bot uses them; stop it, or give this one a replicas.app of its own"
            )
        await asyncio.to_thread(_take_down, self._app)
        self._roster = await asyncio.to_thread(_new_roster, self._app, self.identity)
        await self.call("beat", self._owner, frozenset(), 0)
        await asyncio.to_thread(_put_up, self._spec, self.identity)

    async def _used(self, roster: Any) -> bool:
        try:
            async with asyncio.timeout(LEASE_S + CALL_S):
                return bool(await roster.used.remote(self._owner))
        except (RayError, TimeoutError):
            return False  # a roster that does not answer serves nobody

    async def _until_running(self) -> None:
        limit = self._spec.replicas.start_timeout_s
        try:
            async with asyncio.timeout(limit):
                while (status := await asyncio.to_thread(_status, self._app)) != "RUNNING":
                    if status in _FAILED:
                        raise ModelError(await asyncio.to_thread(_fault, self._app))
                    await self.call("beat", self._owner, frozenset(), 0)
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            each = f"{self._spec.threads} CPUs and {self._spec.replicas.gpus:g} GPUs"
            raise ModelError(
                f"the replicas {self._app!r} do not run after {limit:g} s; each takes {each}, and "
                f"the cluster has {_resources()}: see `ray status`, or raise "
                "replicas.start_timeout_s"
            ) from None

    # -- calls

    async def call(self, method: str, *args: object) -> Any:
        """Call the roster, again if it is away for a moment: every call of it may be repeated.

        Raises EngineStopped where it does not answer.
        """
        with _told_as(EngineStopped):
            for pause in PAUSES_S:
                try:
                    return await self._called(method, *args)
                except (RayError, ValueError):
                    await asyncio.sleep(pause)
            return await self._called(method, *args)

    async def _called(self, method: str, *args: object) -> Any:
        if self._roster is None:
            self._roster = await asyncio.to_thread(find_roster, self._app)
        try:
            return await getattr(self._roster, method).remote(*args)
        except RayError:
            self._roster = None  # perhaps another one is there the next time
            raise

    async def ask(self, ask: Ask) -> AsyncGenerator[Answer, None]:
        """Have one replica write a reply; whoever stops iterating cancels it there.

        Raises ReplicaLost where the replica is gone, or none is to be had.
        """
        answers = self._handle.remote(ask)
        whole = False
        try:
            async for answer in answers:
                yield answer
            whole = True
        except _FAULTS as error:
            raise ReplicaLost(_first_line(error)) from error
        finally:
            if not whole:
                answers.cancel()


# -- what runs there (also called there)


class _RosterActor(Roster):
    def __init__(self, identity: str) -> None:
        again = ray.get_runtime_context().was_current_actor_reconstructed
        super().__init__(identity, recovering=again)


def find_roster(app: str) -> Any:
    """Return the handle of the roster of `app`; raises ValueError where there is none."""
    return ray.get_actor(_roster_name(app), namespace=NAMESPACE)


def own_name() -> str:
    """Return the name Serve gave the replica this is called in."""
    return str(serve.get_replica_context().replica_id.unique_id)


# -- blocking steps, each in a thread


def _connect(spec: ReplicaSpec, place: str) -> None:
    """Connect this process; a Ray of our own keeps its files in `place`, a short path."""
    for name in ("ray", "ray.serve"):  # what concerns people is told by our own errors
        logging.getLogger(name).setLevel(logging.ERROR)
    home = Path(__file__).parents[1]
    options: dict[str, Any] = {
        "namespace": NAMESPACE,
        "runtime_env": {"py_modules": [str(home / package) for package in _SHIPPED]},
        "log_to_driver": False,
        "configure_logging": False,
    }
    address = spec.replicas.address
    if not address:
        most = spec.replicas.max * spec.threads
        options["num_cpus"] = max(available_cores(), most)
        options |= {"include_dashboard": False, "object_store_memory": OBJECTS_BYTES}
        options["_temp_dir"] = place
    try:
        ray.init(address=address or "local", **options)
    except Exception as error:  # Ray raises its own, the system's and plain ones
        raise ModelError(
            f"Ray at {address or 'this machine'} cannot be reached: {_first_line(error)}; look "
            "whether it runs (`ray status`) and whether replicas.address is right"
        ) from error


def _put_up(spec: ReplicaSpec, identity: str) -> None:
    """Ask Serve for the replicas; does not wait for them."""
    settings, batch = spec.replicas, spec.serving.max_batch
    serve.start(proxy_location="Disabled")
    declared: serve.Deployment = serve.deployment(Replica)
    deployment = declared.options(
        name=DEPLOYMENT,
        max_ongoing_requests=batch + max(1, batch // 4),  # a place that is free is filled at once
        autoscaling_config=AutoscalingConfig(
            min_replicas=settings.min,
            max_replicas=settings.max,
            target_ongoing_requests=settings.target_replies,
            upscale_delay_s=settings.grow_after_s,
            downscale_delay_s=settings.shrink_after_s,
            metrics_interval_s=REPORT_S,
            look_back_period_s=min(max(settings.grow_after_s, 2 * REPORT_S), 30.0),
        ),
        ray_actor_options={"num_cpus": spec.threads, "num_gpus": settings.gpus},
        graceful_shutdown_timeout_s=spec.serving.deadline_s + DRAIN_S,
        graceful_shutdown_wait_loop_s=POLL_S,
        health_check_period_s=5.0,
        health_check_timeout_s=60.0,
    )
    app = deployment.bind(spec, identity, partial(find_roster, settings.app), own_name)
    serve.run_many(
        [serve.RunTarget(app, name=settings.app, route_prefix=None)],
        wait_for_applications_running=False,
    )


def _take_down(app: str) -> None:
    """Delete what runs under this name, its roster last."""
    if _status(app):
        serve.delete(app)
    roster = _found_roster(app)
    if roster is not None:
        ray.kill(roster)


def _new_roster(app: str, identity: str) -> Any:
    actor = ray.remote(_RosterActor).options(
        name=_roster_name(app),
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0,
        max_restarts=-1,
    )
    return actor.remote(identity)


def _found_roster(app: str) -> Any | None:
    try:
        return find_roster(app)
    except ValueError:
        return None


def _status(app: str) -> str:
    """Return the state of an application in Serve's words; empty where there is none."""
    found = serve.status().applications.get(app)
    return found.status.value if found else ""


def _fault(app: str) -> str:
    """Return why an application does not run: the last line Serve has of it."""
    found = serve.status().applications[app]
    said = [found.message, *(one.message for one in found.deployments.values())]
    lines = [line.strip() for text in said for line in text.splitlines() if "Error" in line]
    return f"the replicas {app!r} do not start: {lines[-1] if lines else found.message}"


def _resources() -> str:
    total = ray.cluster_resources()
    return f"{total.get('CPU', 0):g} CPUs and {total.get('GPU', 0):g} GPUs"


def _roster_name(app: str) -> str:
    return f"{app}-roster"


_FAILED = ("DEPLOY_FAILED", "UNHEALTHY", "DELETING")


@contextmanager
def _told_as(kind: type[EngineStopped] | type[ModelError]) -> Iterator[None]:
    """Turn what Ray raises into one of our errors."""
    try:
        yield
    except (*_FAULTS, ValueError, TimeoutError) as error:
        if isinstance(error, EngineStopped | ModelError):
            raise
        raise kind(f"Ray does not answer as it should: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
