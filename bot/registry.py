"""Which adapters speak in each scope: keeps the engine in step with the database's pointers.

The database says which adapter is live and which is on trial as a canary; this makes them resident,
warms them, and only then lets new replies use them. Another process may flip a pointer (`thumbtune
adapters promote`): a watcher sees the commit and follows within a fraction of a second. An adapter
the engine refuses is taken back, with an audit line, and what spoke before goes on. Knows nothing
of how adapters are trained or judged, nor which conversation a canary answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.errors import AdapterRefused, AdaptersFull, EngineStopped, NotFound, ThumbtuneError
from core.generation import BASE, Engine
from core.manifest import parse_adapter_name, read_manifest
from core.records import AdapterRecord, Scope, utc_now
from storage.aio import AsyncDatabase

log = logging.getLogger(__name__)
WATCH_INTERVAL_S = 0.2


@dataclass(frozen=True, slots=True)
class Swap:
    """A change of the speaking adapter; `refused` holds the reason if it was taken back."""

    scope: str
    old: str
    new: str
    refused: str = ""


class AdapterRegistry:
    """The adapters in memory, by scope. All methods run on the event loop."""

    def __init__(self, database: AsyncDatabase, engine: Engine, data_dir: Path) -> None:
        self._database = database
        self._engine = engine
        self._data_dir = data_dir
        self._speaking: dict[str, str] = {}
        self._on_trial: dict[str, str | None] = {}
        self._loaded: set[str] = set()
        self._listeners: list[Callable[[Swap], None]] = []
        self._lock = asyncio.Lock()
        self._watcher: asyncio.Task[None] | None = None

    # -- life

    async def start(self) -> None:
        """Bring every scope's live adapter into the engine and follow changes from now on."""
        for scope in await self._database.run(lambda db: db.scopes.list()):
            await self._follow(scope)
        self._watcher = asyncio.create_task(self._watch(), name="adapter-watcher")

    async def close(self) -> None:
        """Stop following. Idempotent."""
        if self._watcher:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None

    def on_swap(self, listener: Callable[[Swap], None]) -> None:
        """Call `listener` on the event loop after each change of the speaking adapter."""
        self._listeners.append(listener)

    # -- reading

    async def speaking(self, scope: str) -> str:
        """Return the adapter for a new reply in `scope`; it is resident."""
        if scope not in self._speaking:
            await self._follow(await self._database.run(lambda db: db.scopes.ensure(scope)))
        name = self._speaking[scope]
        await self.ensure_resident(name)
        return name

    async def on_trial(self, scope: str) -> str | None:
        """Return the canary of a scope if there is one and it is resident, else None."""
        name = self._on_trial.get(scope)
        if name is None:
            return None
        try:
            await self.ensure_resident(name)
        except ThumbtuneError as error:
            log.warning("the canary %s cannot answer now: %s", name, error)  # the live one does
            return None
        return name

    # -- following the pointers

    async def sync(self) -> None:
        """Follow every pointer now; returns once the engine and the database agree."""
        for scope in await self._database.run(lambda db: db.scopes.list()):
            await self._follow(scope)

    async def ensure_resident(self, name: str) -> None:
        """Make a published adapter resident without letting it speak. Raises AdapterRefused or
        NotFound.
        """
        if name == BASE or name in self._engine.stats().adapters:
            return  # the engine is asked: with more scopes than room it lets the oldest go
        record = await self._database.run(lambda db: db.adapters.get(name))
        await self._engine.load(name, self._data_dir / record.directory)
        await self._engine.warm(name)
        self._loaded.add(name)

    async def adopt(self, name: str, directory: Path, *, actor: str) -> AdapterRecord:
        """Make a published directory inside the data directory a version, and resident.

        It stays resident whatever the pointers do. A name that is known must lie where it is known
        to. Raises InvalidInput for what is no name, AdapterRefused, or AdaptersFull; then nothing
        is stored.
        """
        scope, version = parse_adapter_name(name)
        home = await asyncio.to_thread(self._home, directory)
        known = await self._known(name)
        if known and known.directory != home:
            raise AdapterRefused(
                f"adapter {name} is known and lies in {known.directory}, not in {home}; a name "
                "never changes its content: publish under the next number"
            )
        await self._engine.load(name, directory)
        await self._engine.warm(name)
        self._loaded.discard(name)
        if known is None:
            manifest = await asyncio.to_thread(read_manifest, directory)
            known = AdapterRecord(
                name=name,
                scope=scope,
                version=version,
                base_sha256=manifest.base_sha256,
                run_id=None,
                directory=home,
                sha256=manifest.sha256,
                state="candidate",
                detail="loaded by hand",
                created_at=utc_now(),
            )
            known = await self._store(known, actor)
        return known

    def _home(self, directory: Path) -> str:
        return str(directory.resolve().relative_to(self._data_dir.resolve()))

    async def _known(self, name: str) -> AdapterRecord | None:
        try:
            return await self._database.run(lambda db: db.adapters.get(name))
        except NotFound:
            return None

    async def _store(self, record: AdapterRecord, actor: str) -> AdapterRecord:
        return await self._database.run(lambda db: db.adapters.add(record, actor=actor))

    async def _watch(self) -> None:
        seen = await self._database.run(lambda db: db.change_counter())
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            try:
                counter = await self._database.run(lambda db: db.change_counter())
                if counter != seen:
                    seen = counter
                    await self.sync()
            except ThumbtuneError:
                log.exception(
                    "could not follow the adapter pointers; trying again"
                )  # the chat must go on

    async def _follow(self, scope: Scope) -> None:
        async with self._lock:
            await self._follow_trial(scope)
            old = self._speaking.get(scope.name)
            new = scope.live or BASE
            if old == new:
                return
            try:
                await self.ensure_resident(new)
            except (AdaptersFull, EngineStopped) as fault:
                log.info("%s; its first reply loads it", fault)  # no fault of the adapter's
            except ThumbtuneError as error:
                await self._take_back(scope, old, str(error))
                return
            self._speaking[scope.name] = new
            if old is not None:  # who speaks first takes nobody's place
                self._announce(Swap(scope.name, old, new))
                await self._make_room(scope)

    async def _follow_trial(self, scope: Scope) -> None:
        """Make a new canary resident before it may answer; one that cannot be loaded is refused."""
        old, new = self._on_trial.get(scope.name), scope.canary
        if old == new:
            return
        try:
            await self.ensure_resident(new or BASE)
        except (AdaptersFull, EngineStopped) as fault:
            log.info("%s; its first reply loads it", fault)
        except ThumbtuneError as error:
            log.error("canary %s cannot be loaded: %s", new, error)
            await self._withdraw(str(new), scope.live, str(error))
            new = None
        self._on_trial[scope.name] = new
        await self._make_room(scope)

    async def _withdraw(self, name: str, fallback: str | None, reason: str) -> None:
        await self._database.run(
            lambda db: db.adapters.withdraw(name, fallback=fallback, reason=reason)
        )

    async def _take_back(self, scope: Scope, old: str | None, reason: str) -> None:
        """The engine refused the live adapter: point back at what spoke before and say so."""
        log.error("adapter %s cannot be loaded: %s", scope.live, reason)
        fallback = old or BASE
        refused = scope.live or BASE
        try:
            await self.ensure_resident(fallback)
        except AdapterRefused:
            fallback = BASE
        self._speaking[scope.name] = fallback
        await self._withdraw(refused, None if fallback == BASE else fallback, reason)
        self._announce(Swap(scope.name, refused, fallback, refused=reason))

    async def _make_room(self, changed: Scope) -> None:
        """Unload what no scope points at any more; running replies keep theirs to their end."""
        scopes = await self._database.run(lambda db: db.scopes.list())
        wanted = set(self._speaking.values()) | {changed.live, changed.previous, changed.canary}
        for scope in scopes:
            wanted |= {scope.live, scope.previous, scope.canary}
        for name in sorted(self._loaded - {name for name in wanted if name}):
            self._loaded.discard(name)
            asyncio.get_running_loop().create_task(self._engine.unload(name), name=f"unload-{name}")

    def _announce(self, swap: Swap) -> None:
        for listener in self._listeners:
            listener(swap)
