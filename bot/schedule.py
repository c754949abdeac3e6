"""When training starts by itself: a cron time, or enough new signals from enough people.

APScheduler keeps the times; the database keeps what happened. A cron run missed while the bot was
down is caught up once: at start, the last time it should have fired is compared with the last run.
One run at a time for each scope. A scope's own number of signals (`places`, under `scope/<name>`)
goes before `schedule.min_votes`, and may be set while the bot runs.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from bot.driver import OnProgress
from bot.learning import LearningService, quiet
from core.errors import ConfigError, InvalidInput, RunInProgress, ThumbtuneError
from core.records import Scope, parse_time
from core.sections import ScheduleSettings
from storage.aio import AsyncDatabase
from storage.database import Database

log = logging.getLogger(__name__)
MAX_VOTES = 100_000
_MIN_VOTES = "min_votes"


def cron_trigger(cron: str) -> CronTrigger:
    """Read a five-field cron expression in UTC; raises ConfigError."""
    try:
        return CronTrigger.from_crontab(cron, timezone=UTC)
    except ValueError as error:
        raise ConfigError([f"schedule.cron: {cron!r} is not a cron expression: {error}"]) from None


def next_cron(cron: str, now: datetime) -> datetime | None:
    """Return when a cron expression is due next; None for the empty one."""
    due: datetime | None = cron_trigger(cron).get_next_fire_time(None, now) if cron else None
    return due


def own_votes(db: Database, scope: str) -> int | None:
    """Return after how many new signals a scope wants to train; None: it never said."""
    votes = db.places.get(f"scope/{scope}").get(_MIN_VOTES)
    return None if votes is None else int(votes)


def set_own_votes(db: Database, scope: str, votes: int, *, actor: str) -> None:
    """Let a scope train by itself after so many new signals; 0 never. Raises InvalidInput."""
    if not 0 <= votes <= MAX_VOTES:
        raise InvalidInput(f"votes {votes}: expected 0 (never) to {MAX_VOTES}")
    with db.transaction():
        row = {**db.places.get(f"scope/{scope}"), _MIN_VOTES: votes}
        db.places.put(f"scope/{scope}", row, actor=actor)


class TrainingSchedule:
    """Starts runs in the running process. Start it on the event loop."""

    def __init__(
        self,
        database: AsyncDatabase,
        learning: LearningService,
        settings: ScheduleSettings,
        on_progress: OnProgress = quiet,
    ) -> None:
        self._database = database
        self._learning = learning
        self._settings = settings
        self._on_progress = on_progress
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._counting = bool(settings.min_votes)

    @property
    def active(self) -> bool:
        """Say whether anything is scheduled, as of the start or the last look at the votes."""
        return bool(self._settings.cron) or self._counting

    async def start(self) -> None:
        """Begin to keep time, and catch up a missed cron run. Raises ConfigError."""
        grace_s = int(3600 * self._settings.misfire_grace_hours)
        options = {"coalesce": True, "max_instances": 1, "misfire_grace_time": grace_s}
        if self._settings.cron:
            trigger = cron_trigger(self._settings.cron)
            missed = await self._missed(trigger)
            first = {"next_run_time": datetime.now(UTC)} if missed else {}
            self._scheduler.add_job(
                self.train_all, trigger, args=["cron"], id="cron", **options, **first
            )
        every = IntervalTrigger(seconds=60 * self._settings.check_minutes, timezone=UTC)
        self._scheduler.add_job(self.train_ready, every, id=_MIN_VOTES, **options)
        await self._thresholds()
        self._scheduler.start()

    async def close(self) -> None:
        """Stop keeping time. Idempotent."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def next_time(self) -> datetime | None:
        """Return when training may next start, or None; a look nobody asked for does not count."""
        jobs = [job for job in self._scheduler.get_jobs() if self._counting or job.id != _MIN_VOTES]
        return min((job.next_run_time for job in jobs if job.next_run_time), default=None)

    async def train_ready(self) -> list[str]:
        """Train each scope with enough new signals from enough people; return those started."""
        started = []
        for scope, wanted in await self._thresholds():
            votes, people = await self._waiting(scope.name)
            enough = 0 < wanted <= votes and people >= self._settings.min_people
            if enough and scope.training_enabled:
                why = f"threshold: {votes} new signals from {people} people"
                await self._train(scope.name, why)
                started.append(scope.name)
        return started

    async def train_all(self, why: str) -> list[str]:
        """Train each scope that has anything new; return those started."""
        started = []
        for scope in await self._database.run(lambda db: db.scopes.list()):
            name = scope.name
            votes, _ = await self._waiting(name)
            if votes and scope.training_enabled:
                await self._train(name, why)
                started.append(name)
        return started

    async def _train(self, scope: str, why: str) -> None:
        log.info("scheduled training of %s (%s)", scope, why)
        try:
            await self._learning.retrain(scope, actor="schedule", on_progress=self._on_progress)
        except RunInProgress as error:
            log.info("not started: %s", error)
        except ThumbtuneError:
            log.exception("scheduled training of %s failed", scope)  # the next time must still come

    async def _thresholds(self) -> list[tuple[Scope, int]]:
        """Return each scope with the signals it trains after (0: never), and note if any does."""

        def found(db: Database) -> list[tuple[Scope, int]]:
            pairs = [(scope, own_votes(db, scope.name)) for scope in db.scopes.list()]
            usual = self._settings.min_votes
            return [(scope, usual if own is None else own) for scope, own in pairs]

        thresholds = await self._database.run(found)
        self._counting = bool(self._settings.min_votes) or any(votes for _, votes in thresholds)
        return thresholds

    async def _waiting(self, scope: str) -> tuple[int, int]:
        """Return how many new signals wait in a scope, and from how many people."""
        return await self._database.run(lambda db: db.feedback.waiting(scope))

    async def _anything_new(self) -> bool:
        scopes = await self._database.run(lambda db: db.scopes.list())
        return any([(await self._waiting(scope.name))[0] for scope in scopes])

    async def _missed(self, trigger: CronTrigger) -> bool:
        """Say whether a cron time has passed since the last run, within the grace."""
        if not await self._anything_new():
            return False
        now = datetime.now(UTC)
        since = now - timedelta(hours=self._settings.misfire_grace_hours)
        runs = await self._database.run(lambda db: db.runs.list(limit=1))
        if runs:
            since = max(since, parse_time(runs[0].created_at))
        due = trigger.get_next_fire_time(None, since)
        return due is not None and due <= now
