"""An engine of several replicas under Ray Serve: the bot's side.

It decides who is resident and who is accepted, as the engine of one process does, and leaves the
writing to whichever replica has room. A version is resident here only while every replica holds it.
A replica that dies before the first word of a reply is forgotten and another one asked, with the
same seed; in the middle of one the reply ends with a plain word. Knows no torch and no database.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from core.basemodel import BaseModel
from core.errors import (
    AdapterRefused,
    EngineBusy,
    EngineStopped,
    InvalidInput,
    ModelError,
    ThumbtuneError,
)
from core.generation import BASE, EngineStats, GenerationRequest
from serving.replica_reply import ReplicaLost, ReplicaReply, VersionMissing
from serving.residents import Residents
from serving.roster import BEAT_S
from serving.stream import ReplyStream
from serving.wire import AdapterFiles, Ask, Refusal, ReplicaSpec, Standing, Version, read_files

if TYPE_CHECKING:
    from serving.cluster import Cluster

log = logging.getLogger(__name__)
PAUSES_S = (0.05, 0.2, 0.5, 1.0, 2.0, 4.0)
"""Before each further replica is asked."""


class ReplicaEngine:
    """Implements core.generation.Engine over replicas. All methods run on the event loop.

    `threads` is what `set_threads` is given while nothing else wants the cores.
    """

    def __init__(
        self, spec: ReplicaSpec, *, threads: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.base: BaseModel = spec.base
        self._spec, self._all_threads, self._clock = spec, threads, clock
        self._owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._residents: Residents[Version] = Residents(spec.serving.max_adapters)
        self._homes: dict[str, Path] = {}
        self._writing: dict[asyncio.Task[None], ReplyStream] = {}
        self._standing = Standing(ready=spec.replicas.min, missing=frozenset(), shares_cores=False)
        self._stopped: EngineStopped | None = EngineStopped("the engine is not started yet")
        self._cluster: Cluster | None = None
        self._beats: asyncio.Task[None] | None = None
        self._loading = asyncio.Lock()
        self._threads_each = self._tokens = self._replies = 0

    # -- life

    async def start(self) -> None:
        """Find the replicas or put them up; returns once they take requests. Raises ModelError."""
        try:
            from serving.cluster import Cluster
        except ImportError as error:
            raise ModelError(
                'serving.backend is "ray" but Ray is not installed here; run '
                "`pip install 'thumbtune[ray]'`"
            ) from error
        self._cluster = Cluster(self._spec, self._owner)
        await self._cluster.open()
        self._stopped = None
        await self._beat()
        self._beats = asyncio.create_task(self._keep_beating(), name="replica-beats")

    async def close(self) -> None:
        """End what is being written and go, with the replicas unless they are kept. Idempotent."""
        if self._stopped is None:
            self._stopped = EngineStopped("the engine is closed")
        tasks = [*self._writing, *([self._beats] if self._beats else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._cluster is not None:
            await self._cluster.close()
            self._cluster = None

    async def set_threads(self, threads: int) -> None:
        """Share these CPU threads out where the replicas run on this machine; the cores of a
        cluster are its own.
        """
        if threads < 1:
            raise InvalidInput(f"threads is {threads}, expected at least 1")
        if not self._spec.replicas.address:
            fair = max(1, threads // self._spec.replicas.max)
            self._threads_each = 0 if threads >= self._all_threads else fair
            await self._beat()

    @property
    def shares_cores(self) -> bool:
        """Whether their threads go on well beside others', or are elsewhere."""
        return bool(self._spec.replicas.address) or self._standing.shares_cores

    def stats(self) -> EngineStats:
        """Read this side's counters."""
        active = min(len(self._writing), self._places())
        return EngineStats(
            active=active,
            waiting=len(self._writing) - active,
            adapters=self._residents.names(),
            tokens_total=self._tokens,
            replies_total=self._replies,
        )

    # -- replies

    def generate(self, request: GenerationRequest) -> ReplyStream:
        """Ask for a reply; raises EngineBusy, UnknownAdapter or EngineStopped at once.

        What a replica refuses later is raised by the stream.
        """
        self._running()
        version = None if request.adapter == BASE else self._residents.adapter(request.adapter)
        waiting = len(self._writing) - self._places()
        if waiting >= self._spec.serving.max_queue:
            raise EngineBusy(waiting, self._spec.serving.max_queue)
        reply = self._reply(request)
        stream = ReplyStream(lambda: None, lambda: self._ahead(stream))
        task = asyncio.create_task(self._write(reply, version, stream), name="replica-reply")
        stream.on_cancel(task.cancel)
        self._writing[task] = stream
        self._residents.hold(version)
        task.add_done_callback(lambda done: self._ended(done, reply, version))
        return stream

    def _reply(self, request: GenerationRequest) -> ReplicaReply:
        """Settle what every replica that may be asked must agree on: the seed and the deadline."""
        seed = request.sampling.seed
        seed = secrets.randbits(31) if seed is None else seed
        allowed = request.deadline_s or self._spec.serving.deadline_s
        settled = replace(
            request, sampling=replace(request.sampling, seed=seed), deadline_s=allowed
        )
        return ReplicaReply(settled, seed, self._clock)

    async def _write(
        self, reply: ReplicaReply, version: Version | None, stream: ReplyStream
    ) -> None:
        try:
            async with asyncio.timeout(reply.request.deadline_s):
                await self._ask_around(reply, version, stream)
        except TimeoutError:
            stream.finish(reply.cut("deadline"))
        except ThumbtuneError as error:
            stream.fail(error)
        except Exception as error:  # whatever it is, whoever waits must hear of it
            log.exception("a replica answers what is not understood")
            stream.fail(EngineStopped(f"a replica answers what is not understood: {error!r}"))

    async def _ask_around(
        self, reply: ReplicaReply, version: Version | None, stream: ReplyStream
    ) -> None:
        """Ask one replica after the other until one has begun the reply; then it is that one's."""
        cluster = self._running()
        sha256 = version.sha256 if version else ""
        ask = Ask(self._owner, cluster.identity, reply.request, sha256)
        for pause in (*PAUSES_S, None):
            try:
                async with contextlib.aclosing(cluster.ask(ask)) as answers:
                    async for answer in answers:
                        stream.add(reply.take(answer))
                stream.finish(reply.whole())
                return
            except ReplicaLost as lost:
                if reply.text or pause is None:
                    raise EngineStopped(
                        f"the replica that wrote this reply is lost ({lost}); ask again"
                    ) from lost
            except VersionMissing:
                if pause is None:
                    raise
                await self._beat()  # sends it again if it is the roster that lost it
            await asyncio.sleep(pause)

    def _ended(
        self, task: asyncio.Task[None], reply: ReplicaReply, version: Version | None
    ) -> None:
        stream = self._writing.pop(task)
        self._residents.release(version)
        self._replies += 1
        self._tokens += reply.tokens
        stream.finish(reply.cut("cancelled"))  # unless it has ended otherwise

    def _ahead(self, stream: ReplyStream) -> int:
        """Return a reply's place in the line: they begin in the order they came."""
        living = list(self._writing.values())
        return max(0, living.index(stream) - self._places() + 1) if stream in living else 0

    def _places(self) -> int:
        return self._spec.serving.max_batch * max(1, self._standing.ready)

    # -- adapters

    async def load(self, name: str, directory: Path) -> None:
        """Bring an adapter to every replica and make it resident, once each has verified it.

        Idempotent for the same content. If all places are taken, the adapter used least recently
        that writes no reply makes room. Raises AdapterRefused (no replica keeps it then),
        AdaptersFull, or EngineStopped where not every replica answers.
        """
        self._running()
        async with self._loading:
            files = await asyncio.to_thread(read_files, directory, name, self.base.sha256)
            if name not in self._residents:
                await self._spread(files, directory)
            try:
                evicted = self._residents.add(Version(name, files.sha256))
            except ThumbtuneError:
                if name not in self._residents:
                    await self._forget(name)
                raise
            for old in evicted:
                log.info("adapter %s made room for %s", old.name, name)
                await self._forget(old.name)

    async def _spread(self, files: AdapterFiles, directory: Path) -> None:
        self._homes[files.name] = directory
        try:
            refusal: Refusal | None = await self._running().call("load", self._owner, files)
        except BaseException:
            del self._homes[files.name]  # with the next beat it is no longer claimed
            raise
        if refusal is not None:
            del self._homes[files.name]
            kind = AdapterRefused if refusal.word == "invalid" else EngineStopped
            raise kind(refusal.said)

    async def unload(self, name: str) -> None:
        """Take an adapter out of every replica after its last running reply; new requests are
        refused at once. Raises UnknownAdapter.
        """
        self._running()
        if await self._residents.remove(name) is not None and self._stopped is None:
            await self._forget(name)

    async def _forget(self, name: str) -> None:
        self._homes.pop(name, None)
        with contextlib.suppress(EngineStopped):  # then the next beat says it
            await self._running().call("drop", self._owner, name)

    async def warm(self, name: str) -> None:
        """See that replicas are there: each warmed the adapter as it loaded it."""
        if name != BASE:
            self._residents.adapter(name)  # raises UnknownAdapter
        await self._beat()
        if not self._standing.ready:
            raise EngineStopped("no replica takes requests now; see `ray status`")

    # -- the roster

    async def _keep_beating(self) -> None:
        while True:
            try:
                await self._beat()
            except ThumbtuneError as error:
                log.warning("the roster of the replicas does not answer: %s", error)
            except Exception:  # whatever it is, without beats the versions would be let go
                log.exception("a beat failed")
            await asyncio.sleep(BEAT_S)

    async def _beat(self) -> None:
        """Say that we live and which versions we want; give again what the roster has lost."""
        cluster = self._running()
        claims = frozenset(self._homes)
        self._standing = await cluster.call("beat", self._owner, claims, self._threads_each)
        for name in self._standing.missing:
            if name in self._residents and name in self._homes:
                files = await asyncio.to_thread(
                    read_files, self._homes[name], name, self.base.sha256
                )
                await cluster.call("give", self._owner, files)

    def _running(self) -> Cluster:
        if self._stopped is not None or self._cluster is None:
            raise self._stopped or EngineStopped("the engine is not started yet")
        return self._cluster
