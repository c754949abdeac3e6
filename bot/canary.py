"""The canary: a new version answers a share of new conversations until their votes decide.

Invariant: where a trial stands is read from the votes each time, and what they decide is one
transaction that closes the trial and moves the pointers, so a process may die at any moment and the
next look decides the same. Who is drawn is stored with the reply. Knows no face and no model.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from bot.memory import Ask
from bot.registry import AdapterRegistry
from core.canary import Evidence, draws_canary, weigh
from core.errors import ThumbtuneError
from core.records import Trial, parse_time, utc_text
from core.sections import CanarySettings
from storage.aio import AsyncDatabase
from storage.canary import Part
from storage.database import Database

log = logging.getLogger(__name__)
ACTOR = "canary"
"""Who promotes and takes back by the votes, in the audit trail."""
REST = timedelta(hours=1)
"""After a pause this long, what is said in the same place is another talk and is drawn anew."""
LOOK_INTERVAL_S = 1.0
LOOKS_UNCHANGED = 60
"""So many looks at a database that did not change are one at the clock."""
Outcome = Literal["better", "worse", "undecided"]


@dataclass(frozen=True, slots=True)
class Voice:
    """Which adapter writes a reply, and the part that the reply has in a trial, if any."""

    adapter: str
    part: Part | None = None


@dataclass(frozen=True, slots=True)
class TrialStanding:
    """Where a canary's trial stands; at `ends_at` (UTC text), or after so many thumbs, it ends."""

    trial: Trial
    evidence: Evidence
    most_thumbs: int
    ends_at: str


@dataclass(frozen=True, slots=True)
class Decided:
    """How a trial ended. `why` gives the figures in one sentence."""

    standing: TrialStanding
    outcome: Outcome
    why: str


Listener = Callable[[Decided], Awaitable[None]]


class CanaryService:
    """The canaries of all scopes. All methods run on the event loop."""

    def __init__(
        self, database: AsyncDatabase, registry: AdapterRegistry, settings: CanarySettings
    ) -> None:
        self._database = database
        self._registry = registry
        self._settings = settings
        self._listeners: list[Listener] = []
        self._untold: list[Decided] = []
        self._watcher: asyncio.Task[None] | None = None

    # -- life

    async def start(self) -> None:
        """Decide what is due, and from now on whenever something was stored or time is over."""
        await self.look()
        self._watcher = asyncio.create_task(self._watch(), name="canary-watcher")

    async def close(self) -> None:
        """Stop looking. Idempotent."""
        if self._watcher:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None

    def on_decision(self, listener: Listener) -> Callable[[], None]:
        """Await `listener` after each decision made here, also one made while nobody listened.

        What is returned takes it off again.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    # -- speaking

    async def voice(self, ask: Ask) -> Voice:
        """Return who answers: a talk that goes on keeps its version, a new one is drawn."""
        if ask.adapter:
            return Voice(ask.adapter)
        live = await self._registry.speaking(ask.scope)
        canary = await self._registry.on_trial(ask.scope)
        if canary is None:
            return Voice(live)
        now = datetime.now(UTC)
        part = await self._database.run(lambda db: _part(db, ask, canary, now))
        return Voice(canary if part and part.canary else live, part)

    # -- deciding

    async def standing(self, scope: str) -> TrialStanding | None:
        """Return where the trial of a scope stands; None where none goes on."""
        return await self._database.run(lambda db: standing(db, scope, self._settings))

    async def look(self) -> list[Decided]:
        """Decide what the votes decide, in every scope; return and tell what was decided."""
        found = await self._database.run(lambda db: _settled(db, self._settings, datetime.now(UTC)))
        if found:
            await self._registry.sync()
        for decided in found:
            log.info("%s: %s: %s", decided.standing.trial.id, decided.outcome, decided.why)
        self._untold += found
        await self._tell()
        return found

    async def _tell(self) -> None:
        """Tell what is untold, once somebody listens: a start decides before a face is there."""
        listeners = list(self._listeners)
        while listeners and self._untold:
            decided = self._untold.pop(0)
            for listener in listeners:
                await listener(decided)

    async def _watch(self) -> None:
        seen, unchanged = -1, 0
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            try:
                counter = await self._database.run(lambda db: db.change_counter())
                unchanged += 1
                if counter != seen or unchanged >= LOOKS_UNCHANGED:
                    seen, unchanged = counter, 0
                    await self.look()
            except ThumbtuneError:
                log.exception("a canary could not be judged; trying again")  # the chat must go on


def standing(db: Database, scope: str, settings: CanarySettings) -> TrialStanding | None:
    """Return where the trial of a scope stands; None where none goes on."""
    trial = db.trials.canary(scope)
    if trial is None or trial.share is None:
        return None
    evidence = weigh(
        db.canary.thumbs(trial.id), db.canary.choices(trial), settings.rules(trial.share)
    )
    ends_at = parse_time(trial.created_at) + timedelta(days=settings.max_days)
    return TrialStanding(trial, evidence, settings.max_votes, utc_text(ends_at))


def account(stand: TrialStanding) -> str:
    """Give the figures of a trial in one sentence."""
    sides, trial, evidence = stand.evidence.sides, stand.trial, stand.evidence
    chosen = f", {sides.won} of {sides.won + sides.lost} blind choices for it"
    return (
        f"{sides.canary_up} of {sides.canary_up + sides.canary_down} conversations with "
        f"{trial.candidate} liked, {sides.live_up} of {sides.live_up + sides.live_down} with "
        f"{trial.reference}{chosen if sides.won + sides.lost else ''}; evidence that it is better "
        f"{evidence.better:.2g} of {evidence.needed_better:.3g} needed, worse "
        f"{evidence.worse:.2g} of {evidence.needed_worse:.3g}"
    )


def _part(db: Database, ask: Ask, canary: str, now: datetime) -> Part | None:
    trial = db.trials.canary(ask.scope)
    if trial is None or trial.share is None or trial.candidate != canary:
        return None
    since = "" if ask.replaces else utc_text(now - REST)  # another version stays with the first
    before = db.canary.before(ask.conversation_id, ask.sources, since=since)
    if before:
        return before.part if before.part and before.part.trial_id == trial.id else None
    talk = f"{ask.conversation_id}/{now:%Y-%m-%d}"
    return Part(trial.id, talk, draws_canary(trial.id, talk, trial.share))


def _settled(db: Database, settings: CanarySettings, now: datetime) -> list[Decided]:
    scopes = [scope.name for scope in db.scopes.list() if scope.canary]
    return [decided for scope in scopes if (decided := _settle(db, scope, settings, now))]


def _settle(db: Database, scope: str, settings: CanarySettings, now: datetime) -> Decided | None:
    """Close a trial that is decided and move the pointers, in one transaction."""
    with db.transaction():
        stand = standing(db, scope, settings)
        outcome = _outcome(stand, now) if stand else None
        if stand is None or outcome is None:
            return None
        why = f"{_SAID[outcome]}: {account(stand)}"
        if outcome == "better":
            db.trials.close(stand.trial.id, "better", actor=ACTOR, why=why)
            db.adapters.promote(stand.trial.candidate, actor=ACTOR, detail=why)
        else:
            db.adapters.end_trial(scope, outcome, actor=ACTOR, why=why)
        return Decided(stand, outcome, why)


_SAID = {
    "better": "promoted by its votes",
    "worse": "taken back by its votes",
    "undecided": "its votes decided nothing",
}


def _outcome(stand: TrialStanding, now: datetime) -> Outcome | None:
    match stand.evidence.decision:
        case "promote":
            return "better"
        case "roll back":
            return "worse"
    over = stand.evidence.thumbs >= stand.most_thumbs or utc_text(now) >= stand.ends_at
    return "undecided" if over else None
