"""The engine in this process: replies by the base model and any resident adapter.

This is the event loop's side. It decides who is resident and who is accepted; the model thread
(serving.worker) writes the replies. A job holds its adapter itself, so a reply ends on the adapter
it began with whatever is loaded, unloaded or promoted meanwhile. Knows no database and no chat
platform.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import math
import secrets
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch

from core.basemodel import BaseModel
from core.errors import EngineBusy, EngineStopped, InvalidInput, ModelError
from core.generation import BASE, EngineStats, GenerationRequest, Message, Sampling
from core.sections import ServingSettings
from serving.adapters import read_adapter
from serving.base import load_model, load_tokenizer
from serving.lora import LoadedAdapter
from serving.reply import Job, Progress
from serving.residents import Residents
from serving.stream import ReplyStream
from serving.worker import Loaded, Worker

log = logging.getLogger(__name__)

_WARM_UP = GenerationRequest((Message("user", "Hello!"),), sampling=Sampling(0.0, max_tokens=2))


class LocalEngine:
    """Implements core.generation.Engine with one model thread in this process."""

    def __init__(
        self,
        base: BaseModel,
        *,
        settings: ServingSettings,
        dtype: str,
        device: str,
        threads: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.base = base
        self._settings = settings
        self._dtype, self._device, self._threads = dtype, device, threads
        self._clock = clock
        self._residents: Residents[LoadedAdapter] = Residents(settings.max_adapters)
        self._streams: dict[Job, ReplyStream] = {}
        self._worker: Worker | None = None
        self._thread: threading.Thread | None = None
        self._ended: asyncio.Event | None = None
        self._stopped: EngineStopped | None = EngineStopped("the engine is not started yet")
        self._replies_total = 0
        self._loading = asyncio.Lock()

    # -- life

    async def start(self) -> None:
        """Load the base model; returns once replies can be written. Raises ModelError."""
        if self._thread is not None:
            raise EngineStopped("the engine was started already; make a new one")
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[Worker] = loop.create_future()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(
            target=self._run, args=(loop, ready), name="thumbtune-model", daemon=True
        )
        self._thread.start()
        self._worker = await ready
        self._stopped = None
        await self._warm_up(BASE)

    async def close(self) -> None:
        """Cancel what runs, end the model thread. Idempotent."""
        if self._stopped is None:
            self._stopped = EngineStopped("the engine is closed")
        if self._worker is not None:
            self._worker.stop()
        if self._ended is not None:
            await self._ended.wait()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    async def set_threads(self, threads: int) -> None:
        """Give the model thread this many CPU threads from the next step on."""
        if threads < 1:
            raise InvalidInput(f"threads is {threads}, expected at least 1")
        self._threads = threads
        await self._on_model_thread(lambda: self._running().batch.set_threads(threads))

    @property
    def shares_cores(self) -> bool:
        """Whether its threads go on well where something of lower priority wants the same cores."""
        return self._running().batch.shares_cores

    def stats(self) -> EngineStats:
        """Read the counters."""
        jobs = sum(not job.internal for job in self._streams)
        active = min(jobs, self._worker.active) if self._worker else 0
        return EngineStats(
            active=active,
            waiting=jobs - active,
            adapters=self._residents.names(),
            tokens_total=self._worker.tokens_total if self._worker else 0,
            replies_total=self._replies_total,
        )

    # -- replies

    def generate(self, request: GenerationRequest) -> ReplyStream:
        """Queue a reply; raises EngineBusy, UnknownAdapter, InvalidInput, EngineStopped at once."""
        self._running()
        _check(request)
        adapter = None if request.adapter == BASE else self._residents.adapter(request.adapter)
        jobs = sum(not job.internal for job in self._streams)
        if jobs >= self._settings.max_batch + self._settings.max_queue:
            raise EngineBusy(jobs - self._settings.max_batch, self._settings.max_queue)
        return self._submit(request, adapter, internal=False)

    def _submit(
        self, request: GenerationRequest, adapter: LoadedAdapter | None, *, internal: bool
    ) -> ReplyStream:
        worker = self._running()
        now = self._clock()
        allowed = self._settings.deadline_s if request.deadline_s is None else request.deadline_s
        seed = request.sampling.seed
        job = Job(
            request,
            adapter,
            seed=secrets.randbits(31) if seed is None else seed,
            submitted=now,
            deadline=math.inf if internal else now + allowed,
            internal=internal,
        )

        def cancel() -> None:
            job.cancelled = True
            worker.post(lambda: None)

        stream = self._streams[job] = ReplyStream(cancel, lambda: self._ahead(job))
        self._residents.hold(adapter)
        worker.submit(job)
        return stream

    def _ahead(self, job: Job) -> int:
        """Return a job's place in the line: living jobs begin in the order they came."""
        living = [other for other in self._streams if not other.internal]
        return max(0, living.index(job) - self._settings.max_batch + 1) if job in living else 0

    def _deliver(self, progress: list[Progress]) -> None:
        """Pass on what one step brought. On the event loop."""
        for item in progress:
            stream = self._streams.get(item.job)
            if stream is None:
                continue
            stream.drawn += 1
            stream.add(item.piece)
            if item.result is not None:
                del self._streams[item.job]
                self._residents.release(item.job.adapter)
                self._replies_total += not item.job.internal
                stream.finish(item.result)

    # -- adapters

    async def load(self, name: str, directory: Path) -> None:
        """Validate an adapter and make it resident beside the running ones.

        Reading and checking happen in a worker thread, so no reply waits for it. Idempotent for the
        same content. If all places are taken, the adapter used least recently that is neither
        pinned nor writing makes room. Raises AdapterRefused or AdaptersFull.
        """
        worker = self._running()
        async with self._loading:
            adapter = await asyncio.to_thread(self._read, worker, directory, name)
            self._running()
            leaving = [adapter]
            try:
                leaving = self._residents.add(adapter)
                for evicted in leaving:
                    log.info("adapter %s made room for %s", evicted.name, name)
                if self._residents.adapter(name) is not adapter:  # the same content was here
                    leaving = [adapter]
            finally:
                for old in leaving:
                    await self._forget(old)

    def _read(self, worker: Worker, directory: Path, name: str) -> LoadedAdapter:
        """Read, check and prepare an adapter. In a worker thread."""
        with worker.batch.core_lent():
            adapter = read_adapter(
                directory,
                name=name,
                base_sha256=self.base.sha256,
                linears=worker.linears,
                dtype=worker.dtype,
                device=worker.device,
            )
            worker.batch.prepare(adapter)
        return adapter

    async def unload(self, name: str) -> None:
        """Take an adapter out after its last running reply; new requests are refused at once.

        Returns early if the same adapter is loaded again meanwhile. Raises UnknownAdapter.
        """
        self._running()
        adapter = await self._residents.remove(name)
        if adapter is not None and self._stopped is None:
            await self._forget(adapter)

    async def _forget(self, adapter: LoadedAdapter) -> None:
        batch = self._running().batch
        await self._on_model_thread(lambda: batch.forget(adapter))

    async def warm(self, name: str) -> None:
        """See to it that the first real reply pays nothing: by a throw-away step where it would."""
        lazy = self._running().batch.lazy
        if name != BASE:
            self._residents.adapter(name)  # raises UnknownAdapter
        if lazy:
            await self._warm_up(name)

    async def _warm_up(self, name: str) -> None:
        adapter = None if name == BASE else self._residents.adapter(name)
        await self._submit(_WARM_UP, adapter, internal=True).result()

    def pin(self, names: Collection[str]) -> None:
        """Say which adapters never make room for another; replaces the set said before."""
        self._residents.pinned = frozenset(names)

    # -- the model thread

    def _running(self) -> Worker:
        if self._stopped is not None or self._worker is None:
            raise self._stopped or EngineStopped("the engine is not started yet")
        return self._worker

    async def _on_model_thread(self, action: Callable[[], None]) -> None:
        """Do something between two steps and wait until it is done."""
        worker = self._running()
        done: concurrent.futures.Future[None] = concurrent.futures.Future()

        def act() -> None:
            try:
                action()
            except Exception as error:  # the one who asked must hear of it, the thread goes on
                done.set_exception(error)
            else:
                done.set_result(None)

        worker.post(act)
        assert self._ended is not None  # noqa: S101 - set by start
        finished = asyncio.wrap_future(done)
        ended = asyncio.ensure_future(self._ended.wait())
        waiting: set[asyncio.Future[Any]] = {finished, ended}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if not finished.done():
            finished.cancel()
            raise self._stopped or EngineStopped("the engine is closed")
        finished.result()

    def _run(self, loop: asyncio.AbstractEventLoop, ready: asyncio.Future[Worker]) -> None:
        """Load the model, then work until stopped. The body of the model thread."""

        def tell(function: Callable[..., None], *args: object) -> None:
            with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody listens
                loop.call_soon_threadsafe(function, *args)

        try:
            torch.set_num_threads(self._threads)
            worker = Worker(
                Loaded(load_model(self.base, self._dtype, self._device), load_tokenizer(self.base)),
                self._settings,
                clock=self._clock,
                deliver=lambda progress: tell(self._deliver, progress),
            )
            worker.batch.set_threads(self._threads)
        except BaseException as error:  # whatever it is, `start` must hear of it
            known = error if isinstance(error, ModelError) else ModelError(f"the model: {error!r}")
            tell(_fail_unless_done, ready, known)
            tell(self._on_end, known)
            return
        tell(_succeed_unless_done, ready, worker)
        try:
            worker.run()
        except BaseException as error:  # the thread's last act: nobody may wait for it in vain
            log.exception("the model thread failed")
            tell(self._on_end, error)
        else:
            tell(self._on_end, None)

    def _on_end(self, cause: BaseException | None) -> None:
        """Fail whoever still waits: the model thread has ended. On the event loop."""
        if cause is not None:
            self._stopped = EngineStopped(f"the model thread failed: {cause!r}; restart Thumbtune")
        reason = self._stopped or EngineStopped("the engine is closed")
        self._stopped = reason
        for job, stream in self._streams.items():
            self._residents.release(job.adapter)
            stream.fail(reason)
        self._streams.clear()
        if self._ended is not None:
            self._ended.set()


def _check(request: GenerationRequest) -> None:
    sampling = request.sampling
    if not request.messages:
        raise InvalidInput("a request needs at least one message")
    if sampling.max_tokens < 1:
        raise InvalidInput(f"max_tokens is {sampling.max_tokens}, expected at least 1")
    if not (sampling.temperature >= 0 and math.isfinite(sampling.temperature)):
        raise InvalidInput(f"temperature is {sampling.temperature}, expected 0 or more")
    if not 0 < sampling.top_p <= 1:
        raise InvalidInput(f"top_p is {sampling.top_p}, expected a number in (0, 1]")
    if sampling.top_k < 0:
        raise InvalidInput(f"top_k is {sampling.top_k}, expected 0 or more")
    if sampling.seed is not None and not -(2**63) <= sampling.seed < 2**64:
        raise InvalidInput(f"seed is {sampling.seed}, expected a 64-bit integer")


def _succeed_unless_done(future: asyncio.Future[Worker], worker: Worker) -> None:
    if not future.done():
        future.set_result(worker)


def _fail_unless_done(future: asyncio.Future[Worker], error: ModelError) -> None:
    if not future.done():
        future.set_exception(error)
