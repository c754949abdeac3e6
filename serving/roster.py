"""Who serves, and which versions everybody is to hold: the one place where both are known.

There is one roster beside the replicas. Since joining and changing the set happen here, one after
the other, no replica can fall between: one that joined before a version was added is waited for,
one that joins later finds it in its first snapshot. Replicas come to the roster and are told; a
replica or a bot that has not come for LEASE_S counts as gone. A version stays for as long as a
living bot claims it.

Runs on one event loop. Knows no Ray, no torch and no files; reads no adapter.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from serving.wire import AdapterFiles, Refusal, Report, Snapshot, Standing, Wanted

BEAT_S = 1.0
"""How often a bot and a replica let hear of themselves."""
LEASE_S = 10.0
"""Whoever was not heard for this long is gone."""
PATIENCE_S = 90.0
"""How long a change may take to reach every replica: the longest is reading a large adapter."""


@dataclass(slots=True)
class _Version:
    sha256: str
    files: AdapterFiles | None
    since: int
    proven: bool = False


@dataclass(slots=True)
class _Member:
    heard: float
    report: Report


@dataclass(slots=True)
class _Owner:
    heard: float
    claims: set[str] = field(default_factory=set)


class Roster:
    """The replicas, the bots and the versions of one deployment. `identity` says what it serves.

    `recovering` is for one that was restarted: until everybody had time to come back, nothing is
    taken from a replica.
    """

    def __init__(
        self,
        identity: str,
        *,
        recovering: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._identity = identity
        self._clock = clock
        self._whole_at = clock() + LEASE_S if recovering else clock()
        self._generation = time.time_ns()  # later than any of a roster before this one
        self._threads = 0
        self._versions: dict[str, _Version] = {}
        self._members: dict[str, _Member] = {}
        self._owners: dict[str, _Owner] = {}
        self._changed = asyncio.Event()

    async def identity(self) -> str:
        """Return what is served here, as the bot that began it said."""
        return self._identity

    # -- replicas

    async def sync(self, report: Report) -> Snapshot | None:
        """Take a replica's report, and answer once it has something to do, or after a beat.

        None tells a replica of another kind that it is not wanted here.
        """
        if report.identity != self._identity:
            return None
        self._members[report.member] = _Member(self._clock(), report)
        if not self._whole:
            for name, sha256 in report.held.items():
                self._versions.setdefault(name, _Version(sha256, None, self._generation, True))
        self._tell()
        await self._until(lambda: report.generation != self._generation, BEAT_S)
        return await self.snapshot()

    async def snapshot(self) -> Snapshot:
        """Return what every replica is to hold now."""
        self._sweep()
        return Snapshot(
            generation=self._generation,
            versions={
                name: Wanted(version.sha256, version.proven)
                for name, version in self._versions.items()
            },
            owners=frozenset(self._owners),
            threads=self._threads,
            whole=self._whole,
        )

    async def breathe(self, member: str) -> None:
        """Hear that a replica lives, whatever else it is busy with."""
        if member in self._members:
            self._members[member].heard = self._clock()

    async def leave(self, member: str) -> None:
        """Forget a replica that ends."""
        self._members.pop(member, None)
        self._tell()

    async def files(self, name: str) -> AdapterFiles | None:
        """Return a version's files; None if it is not in the set, or nobody has sent them again."""

        def there() -> bool:
            return name not in self._versions or self._versions[name].files is not None

        await self._until(there, LEASE_S)
        version = self._versions.get(name)
        return version.files if version else None

    # -- bots

    async def beat(self, owner: str, claims: frozenset[str], threads: int) -> Standing:
        """Hear that a bot lives and which versions it wants kept; say how the replicas stand."""
        self._owners[owner] = _Owner(self._clock(), set(claims))
        self._tell()
        if threads != self._threads:
            self._threads = threads
            self._bump()
        self._sweep()
        ready = [member.report for member in self._members.values() if member.report.ready]
        missing = {
            name
            for name in claims
            if name not in self._versions or self._versions[name].files is None
        }
        return Standing(
            ready=len(ready),
            missing=frozenset(missing),
            shares_cores=all(report.shares_cores for report in ready),
        )

    async def load(self, owner: str, files: AdapterFiles) -> Refusal | None:
        """Bring a version to every replica; return once each has verified it, or why not.

        What one replica refuses, none keeps, unless it was proven before.
        """
        name = files.name
        if (refusal := await self.give(owner, files)) is not None:
            return refusal
        known = self._versions[name]
        said = await self._until(lambda: self._everybody_said(name), PATIENCE_S)
        if not said or self._versions.get(name) is not known:
            await self.drop(owner, name, wait=False)
            return Refusal(
                "stopped",
                f"adapter {name} did not reach every replica in {PATIENCE_S:g} s; see `ray status`",
            )
        reasons = self._reasons(name)
        if reasons and not known.proven:
            await self.drop(owner, name)
            return Refusal("invalid", reasons[0])
        known.proven = True
        return None

    async def give(self, owner: str, files: AdapterFiles) -> Refusal | None:
        """Put a version into the set for a bot, or hand its files in again; does not wait."""
        name = files.name
        known = self._versions.get(name)
        if known and known.sha256 != files.sha256:
            return Refusal("invalid", _other_content(name, known.sha256, files.sha256))
        self._owners.setdefault(owner, _Owner(self._clock())).claims.add(name)
        if known is None:
            self._bump()
            self._versions[name] = known = _Version(files.sha256, files, self._generation)
        known.files = files
        self._tell()
        return None

    async def drop(self, owner: str, name: str, *, wait: bool = True) -> None:
        """Release a bot's claim; return once no replica holds the version, if nobody else does."""
        if owner in self._owners:
            self._owners[owner].claims.discard(name)
        self._sweep()
        if wait:
            await self._until(
                lambda: name in self._versions or not self._somebody_holds(name), PATIENCE_S
            )

    async def depart(self, owner: str) -> None:
        """Forget a bot and its claims."""
        self._owners.pop(owner, None)
        self._sweep()

    async def used(self, owner: str) -> bool:
        """Say whether another bot uses the replicas; one that was killed is heard no more."""
        came = self._clock()

        def heard() -> bool:
            return any(it.heard > came for name, it in self._owners.items() if name != owner)

        await self._until(lambda: heard() or not self._owners.keys() - {owner}, LEASE_S + BEAT_S)
        return heard()

    async def reports(self) -> tuple[Report, ...]:
        """Return what each replica said last."""
        self._sweep()
        return tuple(member.report for member in self._members.values())

    # -- inside

    @property
    def _whole(self) -> bool:
        return self._clock() >= self._whole_at

    def _everybody_said(self, name: str) -> bool:
        """Say whether there are replicas and each holds the version, or has said why not."""
        version = self._versions.get(name)
        if version is None:
            return True
        reports = [member.report for member in self._members.values()]
        return bool(reports) and all(
            report.generation >= version.since and (name in report.held or name in report.refused)
            for report in reports
        )

    def _reasons(self, name: str) -> list[str]:
        """Return why replicas refuse a version."""
        reports = [member.report for member in self._members.values()]
        return [
            f"{report.refused[name]} (replica {report.member})"
            for report in reports
            if name in report.refused
        ]

    def _somebody_holds(self, name: str) -> bool:
        return any(
            name in member.report.held or member.report.generation < self._generation
            for member in self._members.values()
        )

    def _sweep(self) -> None:
        """Forget who is gone, then the versions that nobody claims."""
        lost = self._clock() - LEASE_S
        self._members = {k: v for k, v in self._members.items() if v.heard > lost}
        living = {k: v for k, v in self._owners.items() if v.heard > lost}
        changed = living.keys() != self._owners.keys()
        self._owners = living
        if self._whole:
            claimed = {name for owner in self._owners.values() for name in owner.claims}
            kept = {k: v for k, v in self._versions.items() if k in claimed}
            changed |= kept.keys() != self._versions.keys()
            self._versions = kept
        if changed:
            self._bump()

    def _bump(self) -> None:
        self._generation += 1
        self._tell()

    def _tell(self) -> None:
        """Wake whoever waits for a change."""
        told, self._changed = self._changed, asyncio.Event()
        told.set()

    async def _until(self, true: Callable[[], bool], within_s: float) -> bool:
        """Wait until something holds; return whether it does."""
        self._sweep()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not true():
                    await self._next_change()
        return true()

    async def _next_change(self) -> None:
        """Wait for a change, or long enough that somebody may be gone."""
        try:
            await asyncio.wait_for(self._changed.wait(), BEAT_S)
        except TimeoutError:
            self._sweep()


def _other_content(name: str, theirs: str, ours: str) -> str:
    return (
        f"adapter {name} is resident with content {theirs[:12]}…, found {ours[:12]}…; a name never "
        "changes its content: publish a new version (or, if another bot holds it, give this one a "
        "replicas.app of its own)"
    )
