"""The canary on a real world: who answers, what decides, and that a restart changes neither."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from bot.adapters import promote, roll_back
from bot.arena import Sides
from bot.canary import Decided, account
from bot.world import World, open_world
from core.canary import draws_canary
from core.generation import Sampling
from core.records import Person, utc_text
from core.sections import CanarySettings
from core.settings import Settings
from storage.canary import Part
from storage.database import Database
from tests.bot.conftest import tiny_settings
from tests.bot.test_arena import SCOPE, arena_of, publish, question, speak, spoil
from tests.bot.test_learning import add_votes

SHORT = Sampling(max_tokens=4)


@pytest.fixture
def settings(tmp_path: Path, tiny_model: Path) -> Settings:
    """Settings of a world that tries new versions on half of the new conversations."""
    plain = tiny_settings(tmp_path / "world", tiny_model)
    return plain.model_copy(update={"canary": CanarySettings(share=0.5, max_votes=60)})


@pytest_asyncio.fixture
async def canary(world: World) -> str:
    """Version 1 is live, version 2 on trial; return version 2."""
    await speak(world, await publish(world, 1))
    return await try_out(world, await publish(world, 2))


async def try_out(world: World, name: str, share: float = 0.5) -> str:
    """Put a version on trial."""
    await world.database.run(lambda db: db.adapters.begin_trial(name, share=share, actor="gate"))
    await world.registry.sync()
    return name


async def answer(world: World, person: Person, conversation: str) -> str:
    """Say something; return which adapter answered."""
    writing = await world.chat.say(conversation, person.id, "Hi", sampling=SHORT)
    return (await writing.finished()).adapter


async def begun(world: World, person: Person, *, drawn: bool) -> str:
    """Open conversations until one will be drawn as wanted; return it."""
    trial = await world.database.run(lambda db: db.trials.canary(SCOPE))
    assert trial is not None
    while True:
        talk = await world.chat.open(SCOPE, person)
        if draws_canary(trial.id, f"{talk}/{datetime.now(UTC):%Y-%m-%d}", 0.5) == drawn:
            return talk


def add_thumbs(
    db: Database,
    likes: dict[bool, float],
    *,
    count: int = 60,
    people: int = 9,
    scope: str = SCOPE,
) -> None:
    """Store a voted conversation each, sides in turn, liked in these exact shares by side.

    An odd number of people, so that each hears both sides.
    """
    trial = db.trials.canary(scope)
    assert trial is not None
    due = dict.fromkeys(likes, 0.0)
    for number in range(count):
        side = number % 2 == 0
        due[side] += likes[side]
        liked = due[side] >= 1 - 1e-9
        due[side] -= liked
        person = db.people.ensure("console", f"p{number % people}", consent="given")
        reply = db.replies.start(
            conversation_id=db.conversations.open(scope, person_id=person.id),
            scope=scope,
            prompt=(),
            adapter=trial.candidate if side else trial.reference,
            sampling=Sampling(),
        )
        db.canary.take_part(reply.id, Part(trial.id, f"talk{number}", side))
        db.feedback.vote(reply.id, person.id, "up" if liked else "down")


async def pointers(world: World) -> tuple[str | None, str | None]:
    """Return the live and the canary pointer."""
    scope = await world.database.run(lambda db: db.scopes.get(SCOPE))
    return scope.live, scope.canary


async def test_a_conversation_stays_with_its_version(
    world: World, ada: Person, canary: str
) -> None:
    """Drawn once: both sides answer to the end of their talk, and every row says who and where."""
    for drawn, expected in ((True, canary), (False, f"{SCOPE}@v1")):
        talk = await begun(world, ada, drawn=drawn)
        assert [await answer(world, ada, talk) for _ in range(3)] == [expected] * 3
    rows = await world.database.run(
        lambda db: db._connection.all("SELECT canary, count(*) AS n FROM trial_replies GROUP BY 1")
    )
    assert [(row["canary"], row["n"]) for row in rows] == [(0, 3), (1, 3)]


async def test_a_talk_that_went_on_before_keeps_the_live_version(world: World, ada: Person) -> None:
    """Only what begins after the trial is drawn; once the trial ends all hear the live one."""
    talk = await world.chat.open(SCOPE, ada)
    assert await answer(world, ada, talk) == "base"
    canary = await try_out(world, await publish(world, 1), share=0.9)
    assert await answer(world, ada, talk) == "base"
    drawn = await begun(world, ada, drawn=True)
    assert await answer(world, ada, drawn) == canary
    await roll_back(world.database, world.settings.data_dir, SCOPE, actor="test")
    await world.registry.sync()
    assert await answer(world, ada, drawn) == "base"


async def test_another_version_of_a_reply_stays_on_its_side(
    world: World, ada: Person, canary: str
) -> None:
    """🔁 asks the same adapter again, also after a long pause."""
    talk = await begun(world, ada, drawn=True)
    first = await (await world.chat.say(talk, ada.id, "Hi", sampling=SHORT)).finished()
    long_ago = utc_text(datetime.now(UTC) - timedelta(days=2))
    await world.database.run(
        lambda db: db._connection.run("UPDATE replies SET at = ?", (long_ago,))
    )
    again = await (await world.chat.again(first.id, ada.id)).finished()
    assert again.adapter == canary


async def test_a_long_pause_begins_another_talk(world: World, ada: Person) -> None:
    """What rested an hour is drawn anew: an endless conversation takes part after all."""
    talk = await world.chat.open(SCOPE, ada)
    await answer(world, ada, talk)
    await try_out(world, await publish(world, 1))
    long_ago = utc_text(datetime.now(UTC) - timedelta(hours=2))
    await world.database.run(
        lambda db: db._connection.run("UPDATE replies SET at = ?", (long_ago,))
    )
    await answer(world, ada, talk)
    assert await world.database.run(
        lambda db: db._connection.value("SELECT count(*) FROM trial_replies")
    )


@pytest.mark.parametrize(
    ("likes", "outcome", "live", "state"),
    [
        ({True: 0.9, False: 0.2}, "better", f"{SCOPE}@v2", "live"),
        ({True: 0.2, False: 0.9}, "worse", f"{SCOPE}@v1", "refused"),
        ({True: 0.5, False: 0.5}, "undecided", f"{SCOPE}@v1", "candidate"),
    ],
)
async def test_votes_decide(
    world: World, canary: str, likes: dict[bool, float], outcome: str, live: str, state: str
) -> None:
    """Better is promoted, worse refused, neither waits; all is told once, with the figures."""
    told: list[Decided] = []

    async def listen(decided: Decided) -> None:
        told.append(decided)

    stop = world.canary.on_decision(listen)
    await world.canary.close()
    await world.database.run(lambda db: add_thumbs(db, likes))
    await world.canary.look()
    stop()
    assert await world.canary.look() == []
    assert [one.outcome for one in told] == [outcome]
    assert await pointers(world) == (live, None)
    record = await world.database.run(lambda db: db.adapters.get(canary))
    assert (record.state, record.detail) == (state, told[0].why)
    assert account(told[0].standing) in record.detail
    assert await world.registry.speaking(SCOPE) == live
    (trial,) = await world.database.run(lambda db: db.trials.list(SCOPE))
    assert trial.state == outcome


async def test_time_ends_a_trial(world: World, canary: str) -> None:
    """After `max_days` it is undecided, however few votes came."""
    old = utc_text(datetime.now(UTC) - timedelta(days=15))
    await world.database.run(
        lambda db: db._connection.run("UPDATE trials SET created_at = ?", (old,))
    )
    await world.canary.look()
    assert await pointers(world) == (f"{SCOPE}@v1", None)


async def test_a_decision_is_made_by_whoever_starts_next(settings: Settings) -> None:
    """The votes are stored, the process is gone: the next start decides before anybody speaks."""
    async with open_world(settings, lambda _: None) as world:
        await try_out(world, await publish(world, 1))
        await world.canary.close()
        await world.database.run(lambda db: add_thumbs(db, {True: 0.9, False: 0.2}))
        assert await pointers(world) == (None, f"{SCOPE}@v1")
    async with open_world(settings, lambda _: None) as world:
        assert await pointers(world) == (f"{SCOPE}@v1", None)
        assert await world.registry.speaking(SCOPE) == f"{SCOPE}@v1"
        told: list[str] = []

        async def listen(decided: Decided) -> None:
            told.append(decided.outcome)

        world.canary.on_decision(listen)
        await world.canary.look()
        assert told == ["better"]


async def test_a_trial_goes_on_over_a_restart(settings: Settings) -> None:
    """The canary is resident again, and a talk it answered is still its own."""
    async with open_world(settings, lambda _: None) as world:
        canary = await try_out(world, await publish(world, 1))
        ada = await world.database.run(lambda db: db.people.ensure("console", "ada"))
        talk = await begun(world, ada, drawn=True)
        assert await answer(world, ada, talk) == canary
    async with open_world(settings, lambda _: None) as world:
        assert canary in world.engine.stats().adapters
        assert await answer(world, ada, talk) == canary


async def test_a_damaged_canary_is_refused_and_nobody_hears_it(world: World, ada: Person) -> None:
    """The engine's reason is kept, the trial is closed, and the live version answers all."""
    name = await publish(world, 1)
    spoil(world, name)
    await try_out(world, name)
    assert await pointers(world) == (None, None)
    record = await world.database.run(lambda db: db.adapters.get(name))
    assert record.state == "refused"
    assert await answer(world, ada, await world.chat.open(SCOPE, ada)) == "base"


async def test_the_arena_pits_the_canary_against_who_is_live(
    world: World, ada: Person, canary: str
) -> None:
    """A newer candidate waits; a reply of the arena draws no talk."""
    await publish(world, 3)
    assert await arena_of(world).sides(SCOPE) == Sides(canary, f"{SCOPE}@v1")
    await arena_of(world).open_match(await question(world, ada), rng=random.Random(0))
    assert not await world.database.run(
        lambda db: db._connection.value("SELECT count(*) FROM trial_replies")
    )


async def test_an_accepted_run_goes_on_trial(world: World) -> None:
    """With a share the gate's yes begins a trial; forced, it speaks at once and ends the trial."""
    await world.canary.close()
    await world.database.run(add_votes)
    outcome = await world.learning.retrain(SCOPE, actor="test")
    assert outcome.run.state == "canary"
    assert await pointers(world) == (None, outcome.run.adapter)
    forced = await world.learning.retrain(SCOPE, actor="test", force=True)
    assert forced.run.state == "promoted"
    assert await pointers(world) == (forced.run.adapter, None)


async def test_promoting_by_hand_ends_the_trial(world: World, ada: Person, canary: str) -> None:
    """An admin need not wait; every conversation goes to the promoted version then."""
    talk = await begun(world, ada, drawn=False)
    assert await answer(world, ada, talk) == f"{SCOPE}@v1"
    await promote(world.database, world.settings.data_dir, canary, actor="test")
    await world.registry.sync()
    assert await answer(world, ada, talk) == canary
    assert await world.canary.standing(SCOPE) is None


async def test_a_question_that_names_its_adapter_is_not_drawn(
    world: World, ada: Person, canary: str
) -> None:
    """What was asked of one version is answered by it and counts on no side."""
    ask = replace(await question(world, ada), adapter="base")
    voice = await world.canary.voice(ask)
    assert (voice.adapter, voice.part) == ("base", None)
