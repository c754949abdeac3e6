"""The schedule: enough signals from enough people, a cron time, one catch-up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from bot.schedule import TrainingSchedule, cron_trigger, set_own_votes
from bot.world import make_learning, open_database
from core.errors import ConfigError, InvalidInput
from core.sections import ScheduleSettings
from core.settings import Settings
from storage.aio import AsyncDatabase
from tests.bot.test_learning import SCOPE, add_votes, tiny_base


@pytest_asyncio.fixture
async def database(settings: Settings) -> AsyncIterator[AsyncDatabase]:
    """An open database."""
    async with open_database(settings) as opened:
        yield opened


def schedule(database: AsyncDatabase, settings: Settings, **options: object) -> TrainingSchedule:
    """A schedule over a real learning service; too little data ends its runs at once, refused."""
    strict = settings.model_copy(
        update={"training": settings.training.model_copy(update={"min_examples": 1000})}
    )
    learning = make_learning(strict, database, tiny_base(settings))
    return TrainingSchedule(database, learning, ScheduleSettings.model_validate(options))


async def test_too_few_signals_or_people_start_nothing(
    database: AsyncDatabase, settings: Settings
) -> None:
    """Both numbers must be reached."""
    await database.run(lambda db: add_votes(db, count=12))
    assert await schedule(database, settings, min_votes=13, min_people=1).train_ready() == []
    assert await schedule(database, settings, min_votes=12, min_people=7).train_ready() == []
    assert await schedule(database, settings, min_votes=12, min_people=6).train_ready() == [SCOPE]


async def test_the_same_signals_start_one_run(database: AsyncDatabase, settings: Settings) -> None:
    """After a run the count begins anew."""
    await database.run(lambda db: add_votes(db, count=12))
    timed = schedule(database, settings, min_votes=12, min_people=3)
    assert await timed.train_ready() == [SCOPE]
    assert await timed.train_ready() == []


async def test_a_missed_cron_run_is_caught_up_once(
    database: AsyncDatabase, settings: Settings
) -> None:
    """The bot was down at the time: at start it is due now; after the run it is not."""
    await database.run(lambda db: add_votes(db, count=12))
    passed = datetime.now(UTC) - timedelta(minutes=2)
    timed = schedule(database, settings, cron=f"{passed.minute} {passed.hour} * * *")
    await timed.start()
    due = timed.next_time()
    assert due is not None
    assert due <= datetime.now(UTC) + timedelta(seconds=1)
    await timed.close()
    await timed.train_all("cron")
    again = schedule(database, settings, cron=f"{passed.minute} {passed.hour} * * *")
    await again.start()
    later = again.next_time()
    assert later is not None
    assert later > datetime.now(UTC) + timedelta(hours=1)
    await again.close()


async def test_nothing_new_is_nothing_missed(database: AsyncDatabase, settings: Settings) -> None:
    """Without new feedback a passed time is let pass."""
    passed = datetime.now(UTC) - timedelta(minutes=2)
    timed = schedule(database, settings, cron=f"{passed.minute} {passed.hour} * * *")
    await timed.start()
    due = timed.next_time()
    assert due is not None
    assert due > datetime.now(UTC) + timedelta(hours=1)
    await timed.close()


def test_a_wrong_cron_expression_is_a_configuration_error() -> None:
    """Five fields that mean nothing are named."""
    with pytest.raises(ConfigError, match=r"schedule\.cron: '61 \* \* \* \*'"):
        cron_trigger("61 * * * *")


async def test_a_scopes_own_number_goes_before_the_settings(
    database: AsyncDatabase, settings: Settings
) -> None:
    """A scope that asked for less trains, though the settings alone would start nothing."""
    await database.run(lambda db: add_votes(db, count=12))
    timed = schedule(database, settings, min_votes=0, min_people=3)
    assert await timed.train_ready() == []
    await database.run(lambda db: set_own_votes(db, SCOPE, 12, actor="test"))
    assert await timed.train_ready() == [SCOPE]


async def test_a_scope_can_switch_its_number_off(
    database: AsyncDatabase, settings: Settings
) -> None:
    """0 keeps a scope from training by itself, whatever the settings say."""
    await database.run(lambda db: add_votes(db, count=12))
    await database.run(lambda db: set_own_votes(db, SCOPE, 0, actor="test"))
    assert await schedule(database, settings, min_votes=1, min_people=1).train_ready() == []


async def test_a_number_set_while_it_runs_makes_the_schedule_active(
    database: AsyncDatabase, settings: Settings
) -> None:
    """The votes are looked at even before anybody asked, but only then does that count."""
    await database.run(lambda db: db.scopes.ensure(SCOPE))
    timed = schedule(database, settings)
    await timed.start()
    assert (timed.active, timed.next_time()) == (False, None)
    await database.run(lambda db: set_own_votes(db, SCOPE, 5, actor="test"))
    await timed.train_ready()
    assert timed.active
    assert timed.next_time() is not None
    await timed.close()


async def test_a_number_out_of_range_is_refused(database: AsyncDatabase) -> None:
    """Fewer than no votes is no number of votes."""
    with pytest.raises(InvalidInput, match="votes -1: expected 0"):
        await database.run(lambda db: set_own_votes(db, SCOPE, -1, actor="test"))
