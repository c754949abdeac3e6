"""The arena: two versions answer one question, and people say blindly which answer is better.

Invariant: a match is stored only when both replies are whole, and what a face is given of it says
nowhere which version wrote which reply. Tallies are computed from the votes, never counted up.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, replace
from typing import Literal

from bot.chat import ChatService, ReplyInProgress
from bot.memory import Ask
from bot.registry import AdapterRegistry
from core.errors import Conflict, ThumbtuneError
from core.generation import BASE
from core.intervals import wilson
from core.records import Reply, Tally, Trial
from storage.aio import AsyncDatabase
from storage.database import Database

Choice = Literal["first", "second", "tie"]
WAITING = ("candidate", "canary")


@dataclass(frozen=True, slots=True)
class Sides:
    """The two versions that are compared, by name; `reference` may be the base model."""

    candidate: str
    reference: str


@dataclass(frozen=True, slots=True)
class OpenMatch:
    """A match to be voted on: its id and the two replies' texts, in the order they are shown."""

    id: str
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What the votes say of two versions so far.

    `share` is (wins + ties / 2) / (wins + losses + ties), the candidate's share of decided votes
    with a tie as half a win for each; `low` and `high` its 95 % Wilson interval; None, 0 and 1
    without a vote.
    """

    candidate: str
    reference: str
    wins: int
    losses: int
    ties: int
    people: int
    share: float | None
    low: float
    high: float


class ArenaService:
    """Matches between two versions of a scope. All methods run on the event loop."""

    def __init__(
        self, database: AsyncDatabase, chat: ChatService, registry: AdapterRegistry
    ) -> None:
        self._database = database
        self._chat = chat
        self._registry = registry

    async def sides(self, scope: str) -> Sides:
        """Return who would meet: the canary, else the newest candidate, and who speaks; or who
        speaks and the base.

        Raises Conflict where there is one version only.
        """
        known = await self._database.run(lambda db: db.adapters.list(scope))
        live = await self._registry.speaking(scope) if known else BASE
        waiting = [
            one.name
            for state in WAITING
            for one in known
            if one.state == state and one.name != live
        ]
        if waiting:
            return Sides(waiting[-1], live)
        if live == BASE:
            raise Conflict("there is only one version here: nothing to compare yet")
        return Sides(live, BASE)

    async def ready(self, scope: str, chosen: Sides | None = None) -> Sides:
        """Return both sides, in memory. Raises Conflict, AdapterRefused or NotFound."""
        sides = chosen or await self.sides(scope)
        if sides.candidate == sides.reference:
            raise Conflict(f"{sides.candidate} cannot meet itself; choose two versions")
        for name in (sides.candidate, sides.reference):
            await self._registry.ensure_resident(name)
        return sides

    async def open_match(
        self, ask: Ask, *, rng: random.Random, sides: Sides | None = None
    ) -> OpenMatch:
        """Let both sides answer at once and store the match, in an order that `rng` draws.

        `sides` None takes those that `sides()` names. Raises Conflict where there is one version
        only, and what either side raises: EngineBusy, EngineStopped, AdapterRefused, NotFound. No
        match is stored then.
        """
        sides = await self.ready(ask.scope, sides)
        candidate, reference = await self._both(ask, sides)
        candidate_first = rng.random() < 0.5

        def stored(db: Database) -> str:
            with db.transaction():
                trial = db.trials.ensure(
                    ask.scope, "arena", candidate=sides.candidate, reference=sides.reference
                )
                match = db.trials.add_match(
                    trial.id,
                    candidate_reply=candidate.id,
                    reference_reply=reference.id,
                    candidate_first=candidate_first,
                )
                return match.id

        match_id = await self._database.run(stored)
        texts = (candidate.text, reference.text)
        first, second = texts if candidate_first else texts[::-1]
        return OpenMatch(match_id, first, second)

    async def choose(self, match_id: str, person_id: str, choice: Choice) -> None:
        """Store which reply a person finds better; the last word counts. Raises NotFound."""
        await self._database.run(lambda db: db.trials.choose(match_id, person_id, choice))

    async def tallies(self, scope: str) -> list[Standing]:
        """Return how every two versions that met in this scope stand."""

        def counted(db: Database) -> list[tuple[Trial, Tally]]:
            trials = [trial for trial in db.trials.list(scope) if trial.kind == "arena"]
            return [(trial, db.trials.tally(trial.id)) for trial in trials]

        return [_standing(trial, tally) for trial, tally in await self._database.run(counted)]

    async def _both(self, ask: Ask, sides: Sides) -> tuple[Reply, Reply]:
        """Write both replies side by side; where one fails, the other is stopped and forgotten."""
        begun = [await self._chat.write(replace(ask, adapter=sides.candidate))]
        try:
            begun.append(await self._chat.write(replace(ask, adapter=sides.reference)))
            candidate, reference = await asyncio.gather(*(one.finished() for one in begun))
        except (ThumbtuneError, asyncio.CancelledError):
            await self._abandon(begun)
            raise
        return candidate, reference

    async def _abandon(self, begun: list[ReplyInProgress]) -> None:
        for one in begun:
            one.cancel()
        await asyncio.gather(*(one.finished() for one in begun), return_exceptions=True)
        self._chat.memory.forget_replies(frozenset(one.reply.id for one in begun))


def _standing(trial: Trial, tally: Tally) -> Standing:
    count = tally.candidate + tally.reference + tally.ties
    won = tally.candidate + tally.ties / 2
    low, high = wilson(won, count)
    return Standing(
        candidate=trial.candidate,
        reference=trial.reference,
        wins=tally.candidate,
        losses=tally.reference,
        ties=tally.ties,
        people=tally.people,
        share=won / count if count else None,
        low=low,
        high=high,
    )
