"""The arena: two versions answer, people choose blindly, and the votes are what is counted."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from bot.adapters import promote
from bot.arena import ArenaService, Sides
from bot.memory import Ask
from bot.world import World
from core.errors import AdapterRefused, Conflict, EngineBusy, NotFound
from core.generation import Message, Sampling
from core.intervals import wilson
from core.manifest import WEIGHTS, read_manifest
from core.records import AdapterRecord, AdapterState, Person
from storage.database import Database
from tests.tiny import publish_tiny_adapter

SCOPE = "console"


async def publish(
    world: World,
    version: int,
    *,
    scope: str = SCOPE,
    state: AdapterState = "candidate",
    detail: str = "",
    run_id: str | None = None,
) -> str:
    """Publish a random adapter; return its name."""
    name, home = f"{scope}@v{version}", Path("adapters") / scope / f"v{version}"
    target = world.settings.data_dir / home
    target.parent.mkdir(parents=True, exist_ok=True)
    publish_tiny_adapter(
        target, world.base.path, name, version, base_sha256=world.base.sha256, scale=1.0
    )
    record = AdapterRecord(
        name=name,
        scope=scope,
        version=version,
        base_sha256=world.base.sha256,
        run_id=run_id,
        directory=str(home),
        sha256=read_manifest(target).sha256,
        state=state,
        detail=detail,
        created_at="2026-01-01T00:00:00.000000Z",
    )
    await world.database.run(lambda db: db.adapters.add(record))
    return name


def spoil(world: World, name: str) -> None:
    """Flip the last byte of a published adapter's weights."""
    scope, _, version = name.partition("@")
    weights = world.settings.data_dir / "adapters" / scope / version / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01\x00")


async def speak(world: World, name: str, scope: str = SCOPE) -> None:
    """Let a version speak."""
    await promote(world.database, world.settings.data_dir, name, scope=scope, actor="test")
    await world.registry.sync()


def arena_of(world: World) -> ArenaService:
    """Return the service on the world's parts."""
    return ArenaService(world.database, world.chat, world.registry)


async def question(world: World, person: Person) -> Ask:
    """Ask something in a conversation of its own."""
    return Ask(
        scope=SCOPE,
        conversation_id=await world.chat.open(SCOPE, person),
        prompt=(Message("user", "Hello there"),),
        authors=(person.id,),
        sources=("900",),
        sampling=Sampling(max_tokens=8, temperature=0.0),
        in_history=False,
    )


async def preferences(world: World) -> list[tuple[str, str]]:
    """Return (winner's adapter, loser's adapter) of every stored preference."""

    def read(db: Database) -> list[tuple[str, str]]:
        rows = [row.feedback for row in db.feedback.rows(None) if row.feedback.other_reply_id]
        return [
            (db.replies.get(row.reply_id).adapter, db.replies.get(row.other_reply_id or "").adapter)
            for row in rows
        ]

    return await world.database.run(read)


async def test_one_version_alone_has_nobody_to_meet(world: World, ada: Person) -> None:
    """Without a candidate or a live adapter the match is refused in words."""
    with pytest.raises(Conflict, match="only one version here"):
        await arena_of(world).open_match(await question(world, ada), rng=random.Random(0))


async def test_the_newest_candidate_meets_who_speaks(world: World) -> None:
    """A waiting version meets the live one; without one the live adapter meets the base."""
    arena = arena_of(world)
    first = await publish(world, 1)
    assert await arena.sides(SCOPE) == Sides(first, "base")
    await speak(world, first)
    assert await arena.sides(SCOPE) == Sides(first, "base")
    second = await publish(world, 2, state="canary")
    assert await arena.sides(SCOPE) == Sides(second, first)
    await publish(world, 3, state="refused")
    assert await arena.sides(SCOPE) == Sides(second, first)


async def test_both_sides_answer_the_same_question(world: World, ada: Person) -> None:
    """A match holds one whole reply of each version, made from the same message and question."""
    name = await publish(world, 1)
    opened = await arena_of(world).open_match(await question(world, ada), rng=random.Random(0))
    match = await world.database.run(lambda db: db.trials.match(opened.id))
    ids = (match.candidate_reply, match.reference_reply)
    replies = await world.database.run(lambda db: [db.replies.get(one) for one in ids])
    assert [reply.adapter for reply in replies] == [name, "base"]
    assert {reply.prompt for reply in replies} == {(Message("user", "Hello there"),)}
    texts = [reply.text for reply in replies]
    assert texts[0] != texts[1]
    assert [opened.first, opened.second] == (texts if match.candidate_first else texts[::-1])
    await world.database.run(lambda db: db.replies.forget_message("900"))
    with pytest.raises(NotFound):
        await arena_of(world).choose(opened.id, ada.id, "first")


async def test_the_order_is_drawn(world: World, ada: Person) -> None:
    """The given random numbers decide which version stands first, and both orders occur."""
    await publish(world, 1)
    ask = await question(world, ada)
    drawn, expected = [], []
    for seed in range(6):
        opened = await arena_of(world).open_match(ask, rng=random.Random(seed))
        match = await world.database.run(lambda db, one=opened.id: db.trials.match(one))
        drawn.append(match.candidate_first)
        expected.append(random.Random(seed).random() < 0.5)
    assert drawn == expected
    assert set(drawn) == {True, False}


async def test_a_choice_is_a_preference_until_it_is_changed(world: World, ada: Person) -> None:
    """The last word counts: another choice turns the preference, a tie removes it."""
    name = await publish(world, 1)
    arena = arena_of(world)
    opened = await arena.open_match(await question(world, ada), rng=random.Random(0))
    match = await world.database.run(lambda db: db.trials.match(opened.id))
    for_new, for_base = ("first", "second") if match.candidate_first else ("second", "first")
    await arena.choose(opened.id, ada.id, for_new)  # type: ignore[arg-type]
    assert await preferences(world) == [(name, "base")]
    await arena.choose(opened.id, ada.id, for_base)  # type: ignore[arg-type]
    assert await preferences(world) == [("base", name)]
    await arena.choose(opened.id, ada.id, "tie")
    assert await preferences(world) == []


async def test_the_tally_counts_a_tie_as_half(world: World, ada: Person) -> None:
    """Two wins, a loss and a tie are a share of 2.5 in 4, with its interval and the people."""
    name = await publish(world, 1)
    arena = arena_of(world)
    people = [ada] + [
        await world.database.run(lambda db, n=n: db.people.ensure("console", f"p{n}"))
        for n in range(3)
    ]
    opened = await arena.open_match(await question(world, ada), rng=random.Random(0))
    match = await world.database.run(lambda db: db.trials.match(opened.id))
    new, old = ("first", "second") if match.candidate_first else ("second", "first")
    for person, choice in zip(people, (new, new, old, "tie"), strict=True):
        await arena.choose(opened.id, person.id, choice)  # type: ignore[arg-type]
    (standing,) = await arena.tallies(SCOPE)
    assert (standing.candidate, standing.reference) == (name, "base")
    assert (standing.wins, standing.losses, standing.ties, standing.people) == (2, 1, 1, 4)
    assert standing.share == pytest.approx(0.625)
    assert (standing.low, standing.high) == pytest.approx(wilson(2.5, 4))
    assert await arena.tallies("elsewhere") == []


async def test_a_damaged_candidate_leaves_no_match(world: World, ada: Person) -> None:
    """A candidate that cannot be loaded fails the match before a word is written."""
    spoil(world, await publish(world, 1))
    with pytest.raises(AdapterRefused):
        await arena_of(world).open_match(await question(world, ada), rng=random.Random(0))
    assert await world.database.run(lambda db: db.trials.list(SCOPE)) == []


async def test_a_side_that_fails_stops_the_other(world: World, ada: Person) -> None:
    """Where there is room for one side only, the first is stopped and forgotten: no match."""
    await speak(world, await publish(world, 1))
    await publish(world, 2)
    ask = await question(world, ada)
    serving = world.settings.serving
    room = serving.max_batch + serving.max_queue
    slow = replace(ask, sampling=Sampling(max_tokens=400))
    others = [await world.chat.write(slow) for _ in range(room - 1)]
    with pytest.raises(EngineBusy):
        await arena_of(world).open_match(ask, rng=random.Random(0))
    assert await world.database.run(lambda db: db.trials.list(SCOPE)) == []
    for other in others:
        other.cancel()
        await other.finished()
    assert world.engine.stats().active == 0


async def test_two_versions_may_be_chosen_to_meet(world: World, ada: Person) -> None:
    """Any two; one cannot meet itself."""
    one, two = await publish(world, 1), await publish(world, 2)
    arena, ask = arena_of(world), await question(world, ada)
    match = await arena.open_match(ask, rng=random.Random(0), sides=Sides(one, two))
    await arena.choose(match.id, ada.id, "first")
    (standing,) = await arena.tallies(SCOPE)
    assert (standing.candidate, standing.reference) == (one, two)
    with pytest.raises(Conflict, match="cannot meet itself"):
        await arena.open_match(ask, rng=random.Random(0), sides=Sides(one, one))
