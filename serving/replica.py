"""One replica: an engine of this process, behind Ray Serve, that holds what the roster says.

It takes requests only once its base is the right one, by hash, and it holds every version of the
set. A request names its version by content: one that is not here is fetched first, or refused as
missing; another version never answers. Runs on the event loop that Serve gives it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from core.basemodel import BaseModel, identify_base
from core.errors import (
    AdapterRefused,
    AdaptersFull,
    EngineBusy,
    EngineStopped,
    InvalidInput,
    ModelError,
    ThumbtuneError,
    UnknownAdapter,
)
from core.generation import BASE
from core.manifest import read_manifest
from serving.roster import BEAT_S
from serving.stream import ReplyStream
from serving.wire import (
    AdapterFiles,
    Answer,
    Ask,
    Piece,
    Refusal,
    ReplicaSpec,
    Report,
    Snapshot,
    Word,
)

log = logging.getLogger(__name__)


class Replica:
    """The deployment's class. `find_roster` returns the roster's handle, anew after a loss."""

    async def __init__(  # type: ignore[misc] # Serve awaits it
        self,
        spec: ReplicaSpec,
        identity: str,
        find_roster: Callable[[], Any],
        own_name: Callable[[], str],
    ) -> None:
        self._spec, self._identity, self._find_roster = spec, identity, find_roster
        self._name = own_name()
        self._held: dict[str, str] = {}
        self._refused: dict[str, str] = {}
        self._writing: dict[ReplyStream, str] = {}
        self._generation = -1
        self._ready = self._unwanted = False
        self._threads = spec.threads
        self._applying = asyncio.Lock()
        from serving.engine import LocalEngine  # torch: whoever puts replicas up needs none

        one_more = spec.serving.max_adapters + 1  # a new version comes before an old one goes
        self._engine = LocalEngine(
            await asyncio.to_thread(_verified, spec.base),
            settings=spec.serving.model_copy(update={"max_adapters": one_more}),
            dtype=spec.dtype,
            device=spec.device,
            threads=spec.threads,
        )
        await self._engine.start()
        self._roster = find_roster()
        await self._join()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._follow()), loop.create_task(self._breathe())]

    async def __del__(self) -> None:
        """Leave: called by Serve once the last reply has ended."""
        for task in getattr(self, "_tasks", []):
            task.cancel()
        with contextlib.suppress(Exception):  # the roster may be gone before us
            await self._roster.leave.remote(self._name)
        if hasattr(self, "_engine"):
            await self._engine.close()

    async def check_health(self) -> None:
        """Raise if this replica should be replaced. Called by Serve, again and again."""
        if self._unwanted:
            raise EngineStopped("the roster serves something else now")
        await self._engine.warm(BASE)

    # -- replies

    async def write(self, ask: Ask) -> AsyncIterator[Answer]:
        """Write a reply: pieces, then its result; or a refusal, be it in the middle."""
        if (refusal := await self._missing(ask)) is not None:
            yield refusal
            return
        try:
            stream = self._engine.generate(ask.request)
        except ThumbtuneError as error:
            yield _refusal(error)
            return
        self._writing[stream] = ask.owner
        try:
            async for text in stream:
                yield Piece(text, stream.drawn)
            yield await stream.result()
        except ThumbtuneError as error:
            yield _refusal(error)
        finally:  # whoever asked is gone, or the reply is whole
            stream.cancel()
            del self._writing[stream]

    async def _missing(self, ask: Ask) -> Refusal | None:
        """See that the version asked for is here, fetched now if need be."""
        if ask.identity != self._identity:
            return Refusal("stopped", "these replicas serve another base or other settings now")
        name = ask.request.adapter
        if name == BASE or self._held.get(name) == ask.sha256:
            return None
        with contextlib.suppress(Exception):  # what is missing then is told below
            await self._apply(await self._roster.snapshot.remote())
        if self._held.get(name) == ask.sha256:
            return None
        why = self._refused.get(name, "it is not in the roster's set")
        return Refusal("missing", f"replica {self._name} has no adapter {name}: {why}")

    # -- the set of versions

    async def _join(self) -> None:
        """Load the whole set; raises AdapterRefused where a proven version cannot be loaded."""
        snapshot = await self._sync()
        while snapshot is not None and not snapshot.whole:
            await self._apply(snapshot)
            snapshot = await self._sync()
        await self._apply(snapshot)
        proven = snapshot.versions if snapshot else {}
        for name, why in self._refused.items():
            if name in proven and proven[name].proven:
                raise AdapterRefused(f"adapter {name}, which others hold, is refused here: {why}")
        self._ready = True

    async def _follow(self) -> None:
        """Do what the roster says, as soon as it says it."""
        while True:
            try:
                await self._apply(await self._sync())
            except Exception:  # replies go on while the roster is away
                log.exception("replica %s cannot follow the roster; trying again", self._name)
                await asyncio.sleep(BEAT_S)
                with contextlib.suppress(Exception):
                    self._roster = self._find_roster()

    async def _breathe(self) -> None:
        """Let the roster hear that we live, while a version is being loaded too."""
        while True:
            with contextlib.suppress(Exception):  # `_follow` sees to a roster that is away
                await self._roster.breathe.remote(self._name)
            await asyncio.sleep(BEAT_S)

    async def _sync(self) -> Snapshot | None:
        """Say what we hold; return what we are to hold, at once if that is something else."""
        snapshot: Snapshot | None = await self._roster.sync.remote(
            Report(
                member=self._name,
                identity=self._identity,
                generation=self._generation,
                held=dict(self._held),
                refused=dict(self._refused),
                ready=self._ready,
                shares_cores=self._engine.shares_cores,
            )
        )
        return snapshot

    async def _apply(self, snapshot: Snapshot | None) -> None:
        """Hold exactly what the snapshot says: first let go, then load."""
        if snapshot is None:
            self._unwanted = True
            await asyncio.sleep(BEAT_S)
            return
        async with self._applying:
            if snapshot.generation < self._generation:
                return  # another call was told later news
            self._end_orphans(snapshot.owners)
            await self._let_go(snapshot)
            self._refused = {  # what is proven is tried again: the fault is this machine's
                name: why
                for name, why in self._refused.items()
                if name in snapshot.versions and not snapshot.versions[name].proven
            }
            for name, version in snapshot.versions.items():
                if name not in self._held and name not in self._refused:
                    await self._load(name, version.sha256)
            self._engine.pin(self._held)
            await self._take_threads(snapshot.threads or self._spec.threads)
            self._generation = snapshot.generation

    def _end_orphans(self, owners: frozenset[str]) -> None:
        """End the replies of bots that are gone: they hold places that others wait for."""
        for stream, owner in self._writing.items():
            if owner not in owners:
                stream.cancel()

    async def _let_go(self, snapshot: Snapshot) -> None:
        for name, sha256 in list(self._held.items()):
            wanted = snapshot.versions.get(name)
            if wanted is None and not snapshot.whole:
                continue
            if wanted is None or wanted.sha256 != sha256:
                del self._held[name]
                await self._engine.unload(name)

    async def _load(self, name: str, sha256: str) -> None:
        """Fetch, verify and load a version, or note why not."""
        files: AdapterFiles | None = await self._roster.files.remote(name)
        if files is None:
            return  # it has left the set, or its bot has yet to send it again
        try:
            with tempfile.TemporaryDirectory(prefix="thumbtune-") as place:
                directory = Path(place) / name
                await asyncio.to_thread(files.write, directory)
                found = (await asyncio.to_thread(read_manifest, directory)).sha256
                if found != sha256:
                    raise AdapterRefused(
                        f"adapter {name} arrived as {found[:12]}…, {sha256[:12]}… was promised"
                    )
                await self._engine.load(name, directory)
        except AdaptersFull:
            raise  # a place is about to be free: the next round loads it
        except (ThumbtuneError, OSError) as error:
            self._refused[name] = str(error)
            return
        await self._engine.warm(name)
        self._held[name] = sha256

    async def _take_threads(self, threads: int) -> None:
        if threads != self._threads:
            await self._engine.set_threads(threads)
            self._threads = threads


def _verified(base: BaseModel) -> BaseModel:
    """Return the base as it lies here, every byte hashed; raises ModelError unless it is the one
    the bot has.
    """
    with tempfile.TemporaryDirectory(prefix="thumbtune-") as nothing_kept:
        found = identify_base(base.name, base.path, Path(nothing_kept))
    if found.sha256 != base.sha256:
        raise ModelError(
            f"{base.path}: the base here is {found.sha256[:12]}…, the bot's is "
            f"{base.sha256[:12]}…; put the same files on every node"
        )
    return found


def _refusal(error: ThumbtuneError) -> Refusal:
    words: tuple[tuple[type[ThumbtuneError], Word], ...] = (
        (EngineBusy, "busy"),
        (UnknownAdapter, "missing"),
        (InvalidInput, "invalid"),
    )
    for kind, word in words:
        if isinstance(error, kind):
            return Refusal(word, str(error))
    return Refusal("stopped", str(error))
