"""Which adapters are in memory under which name, who uses them, and who may go.

Lives on the event loop. Immutable names: a name once resident never changes its content. Does not
read files and does not know the model, nor on which machine an adapter is.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from core.errors import AdapterRefused, AdaptersFull, UnknownAdapter


class Content(Protocol):
    """What is kept of an adapter: at least its name and what its bytes hash to."""

    @property
    def name(self) -> str:
        """The immutable name."""
        ...

    @property
    def sha256(self) -> str:
        """The identity of the content."""
        ...


ContentT = TypeVar("ContentT", bound=Content)


@dataclass(slots=True, eq=False)
class _Resident(Generic[ContentT]):
    adapter: ContentT
    users: int = 0
    last_use: int = 0
    leaving: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Residents(Generic[ContentT]):
    """At most `limit` adapters. `pinned` names never make room for another."""

    def __init__(self, limit: int) -> None:
        self.pinned: frozenset[str] = frozenset()
        self._limit = limit
        self._by_name: dict[str, _Resident[ContentT]] = {}
        self._uses = 0

    def names(self) -> tuple[str, ...]:
        """Return the names that new replies may use, sorted."""
        return tuple(sorted(n for n, resident in self._by_name.items() if not resident.leaving))

    def __contains__(self, name: object) -> bool:
        """Say whether the name holds a place, be it only until its last reply has ended."""
        return name in self._by_name

    def all(self) -> tuple[ContentT, ...]:
        """Return every adapter in memory, those about to leave too."""
        return tuple(resident.adapter for resident in self._by_name.values())

    def adapter(self, name: str) -> ContentT:
        """Return a resident adapter; raises UnknownAdapter."""
        return self._present(name).adapter

    def hold(self, adapter: ContentT | None) -> None:
        """Count a reply that uses the adapter (None is the base)."""
        if adapter is not None:
            resident = self._by_name[adapter.name]
            resident.users += 1
            self._uses += 1
            resident.last_use = self._uses

    def release(self, adapter: ContentT | None) -> None:
        """Count a reply that has ended."""
        if adapter is not None:
            self.release_name(adapter.name)

    def release_name(self, name: str) -> None:
        """Count the end of a reply by the name of its adapter."""
        if resident := self._by_name.get(name):
            resident.users -= 1
            resident.changed.set()

    def add(self, adapter: ContentT) -> list[ContentT]:
        """Make an adapter resident; return those that had to make room.

        Raises AdapterRefused if the name holds other content, AdaptersFull if nobody can make room.
        """
        old = self._by_name.get(adapter.name)
        if old is not None:
            if old.adapter.sha256 != adapter.sha256:
                raise AdapterRefused(
                    f"adapter {adapter.name} is resident with content "
                    f"{old.adapter.sha256[:12]}…, found {adapter.sha256[:12]}…; "
                    "a name never changes "
                    "its content: publish a new version"
                )
            old.leaving = False
            old.changed.set()
            return []
        evicted = self._make_room(adapter.name)
        self._uses += 1
        self._by_name[adapter.name] = _Resident(adapter, last_use=self._uses)
        return evicted

    async def remove(self, name: str) -> ContentT | None:
        """Refuse new replies at once, wait for the last one, then drop and return the adapter.

        Returns None if it was added again meanwhile.
        """
        resident = self._present(name)
        resident.leaving = True
        while resident.users and resident.leaving:
            resident.changed.clear()
            await resident.changed.wait()
        if not resident.leaving:
            return None
        del self._by_name[name]
        return resident.adapter

    def _present(self, name: str) -> _Resident[ContentT]:
        resident = self._by_name.get(name)
        if resident is None or resident.leaving:
            here = ", ".join(self.names()) or "none"
            raise UnknownAdapter(f"adapter {name!r} is not resident; resident now: {here}")
        return resident

    def _make_room(self, name: str) -> list[ContentT]:
        if len(self._by_name) < self._limit:
            return []
        idle = [
            r
            for n, r in self._by_name.items()
            if not r.users and not r.leaving and n not in self.pinned
        ]
        if not idle:
            raise AdaptersFull(name, self._limit)
        oldest = min(idle, key=lambda resident: resident.last_use)
        del self._by_name[oldest.adapter.name]
        return [oldest.adapter]
