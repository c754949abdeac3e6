"""The roster: no replica falls between joining and a change of the set."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from serving.roster import LEASE_S, Roster
from serving.wire import AdapterFiles, Refusal, Report, Snapshot

BOT = "bot"


@dataclass
class Clock:
    """A clock that is set by hand."""

    now: float = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@dataclass
class Member:
    """A replica as the roster sees it, doing what it is told when it is told to."""

    roster: Roster
    name: str
    bad: frozenset[str] = frozenset()
    held: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    generation: int = -1

    async def sync(self) -> Snapshot:
        """Report, and do what the answer asks."""
        found = await self.roster.sync(self._report())
        assert found is not None
        wanted = {name: version.sha256 for name, version in found.versions.items()}
        if found.whole:
            self.held = {name: sha for name, sha in self.held.items() if name in wanted}
        for name, sha256 in wanted.items():
            if name in self.bad:
                self.refused[name] = f"{name} is bad"
            else:
                self.held[name] = sha256
        self.generation = found.generation
        return found

    def _report(self) -> Report:
        return Report(self.name, "one", self.generation, self.held, self.refused, True, False)


def files(name: str, content: str = "a") -> AdapterFiles:
    """A version as bytes."""
    return AdapterFiles(name, content * 64, {})


async def started(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Begin something and let it come as far as it can."""
    task = asyncio.create_task(work)
    for _ in range(5):
        await asyncio.sleep(0)
    return task


async def test_a_load_waits_for_who_joins_in_the_middle_of_it() -> None:
    """Scale-up at the very moment of a promotion: the new replica has the version, or is waited
    for.
    """
    roster = Roster("one")
    first, second = Member(roster, "first"), Member(roster, "second")
    await first.sync()
    loading = await started(roster.load(BOT, files("a@v1")))
    joining = await started(second.sync())
    await first.sync()
    await started(first.sync())
    assert joining.done() and second.held == {"a@v1": "a" * 64} and not loading.done()
    await started(second.sync())
    assert await loading is None
    third = Member(roster, "third")
    assert (await third.sync()).versions["a@v1"].proven and "a@v1" in third.held


async def test_what_one_replica_refuses_none_keeps() -> None:
    """The reason names the replica; the set is as it was."""
    roster = Roster("one")
    good, bad = Member(roster, "good"), Member(roster, "bad", frozenset({"a@v1"}))
    await good.sync(), await bad.sync()
    loading = await started(roster.load(BOT, files("a@v1")))
    for _ in range(3):
        await asyncio.gather(good.sync(), bad.sync())
    assert await loading == Refusal("invalid", "a@v1 is bad (replica bad)")
    assert (await roster.snapshot()).versions == {} == good.held


async def test_a_name_never_changes_its_content() -> None:
    """Another content under a name that is in the set is refused."""
    roster = Roster("one")
    await roster.give(BOT, files("a@v1"))
    refusal = await roster.give(BOT, files("a@v1", "b"))
    assert refusal is not None and "never changes its content" in refusal.said


async def test_a_stale_report_is_no_proof() -> None:
    """A version that was dropped and is loaded again is waited for again."""
    roster = Roster("one")
    member = Member(roster, "first")
    await member.sync()
    loading = await started(roster.load(BOT, files("a@v1")))
    await member.sync(), await started(member.sync())
    assert await loading is None
    dropping = await started(roster.drop(BOT, "a@v1"))
    again = await started(roster.load(BOT, files("a@v1")))
    assert not again.done()
    for _ in range(2):
        await member.sync()
    assert await again is None and dropping.done()


async def test_a_dead_replica_is_waited_for_no_longer_than_its_lease() -> None:
    """Whoever is not heard is gone; one that only takes long lets hear of itself."""
    clock = Clock()
    roster = Roster("one", clock=clock)
    alive, dead = Member(roster, "alive"), Member(roster, "dead")
    await alive.sync(), await dead.sync()
    loading = await started(roster.load(BOT, files("a@v1")))
    clock.now += LEASE_S - 1
    await roster.breathe("alive")
    await roster.beat(BOT, frozenset({"a@v1"}), 0)
    await alive.sync(), await started(alive.sync())
    assert not loading.done()
    clock.now += 2
    await alive.sync()
    assert await loading is None


async def test_the_versions_of_a_bot_that_is_gone_go_too() -> None:
    """By its word at once, else after its lease; what another bot claims stays."""
    clock = Clock()
    roster = Roster("one", clock=clock)
    for name, owner in (("a@v1", "one"), ("a@v2", "two"), ("a@v3", "three"), ("a@v1", "three")):
        await roster.give(owner, files(name))
    await roster.depart("one")
    clock.now += LEASE_S - 1
    await roster.beat("three", frozenset({"a@v1", "a@v3"}), 0)
    assert set((await roster.snapshot()).versions) == {"a@v1", "a@v2", "a@v3"}
    clock.now += 2
    assert set((await roster.snapshot()).versions) == {"a@v1", "a@v3"}


async def test_a_roster_that_was_restarted_learns_what_is_held() -> None:
    """It takes nothing away until bots and replicas had time to come back, and asks for files."""
    clock = Clock()
    roster = Roster("one", recovering=True, clock=clock)
    member = Member(roster, "first", held={"a@v1": "a" * 64, "a@v2": "b" * 64})
    assert not (await member.sync()).whole
    standing = await roster.beat(BOT, frozenset({"a@v1", "a@v3"}), 0)
    assert standing.missing == {"a@v1", "a@v3"}
    await roster.give(BOT, files("a@v1"))
    clock.now += LEASE_S - 1
    await roster.beat(BOT, frozenset({"a@v1"}), 0)
    await roster.breathe("first")
    clock.now += 2
    found = await member.sync()
    assert found.whole and set(found.versions) == {"a@v1"} == set(member.held)


async def test_a_replica_of_another_kind_is_sent_away() -> None:
    """It is no member, so nobody waits for it."""
    roster = Roster("two")
    assert await roster.sync(Report("old", "one", 0, {}, {}, True, False)) is None
    assert await roster.reports() == ()


async def test_a_bot_that_was_killed_uses_nothing() -> None:
    """Whoever lives is heard again soon; whoever does not is forgotten."""
    roster = Roster("one")
    await roster.beat("dead", frozenset(), 0)
    asking = await started(roster.used(BOT))
    assert not asking.done()
    await roster.depart("dead")
    assert not await asking
    asking = await started(roster.used(BOT))
    await roster.beat("alive", frozenset(), 0)
    assert await asking is False  # it came later than the question
    asking = await started(roster.used(BOT))
    await roster.beat("alive", frozenset(), 0)
    assert await asking
