"""Review: what admins look at before it trains, one row after the other, and how much may train.

Invariant: a row is shown and decided on only in its own scope. Knows no face; what belongs into the
queue is storage.review's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from bot.feedback import MAX_CORRECTION_CHARS
from core.errors import InvalidInput, NotFound
from core.records import Feedback, FeedbackRow, Person
from storage.aio import AsyncDatabase
from storage.database import Database
from storage.signals import Wanted
from trainer.suspicion import DICTATED, suspicious

Flag = Literal["correction", "reasons", "disagree", "burst", "dictated", "swarm"]
QUEUE = 10_000
"""Rows of a queue looked through for the next one: more than anybody reviews in one go."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A row to decide on, who it is by, why it is here, and how many there are in all."""

    row: FeedbackRow
    person: Person
    flag: Flag
    left: int


@dataclass(frozen=True, slots=True)
class Standing:
    """All that was said in a scope, how much of it may train, and why the rest may not."""

    stats: dict[str, Any]
    may_train: int
    left_out: dict[str, int]


class ReviewService:
    """The review of one world. All methods run on the event loop."""

    def __init__(self, database: AsyncDatabase) -> None:
        self._database = database

    async def standing(self, scope: str) -> Standing:
        """Count what was said, what may train, and what may not for which reason."""

        def counted(db: Database) -> Standing:
            rows = db.feedback.rows(scope)
            aside = _aside(rows)
            reasons = Counter(_why_not(row) or aside.get(row.feedback.id, "") for row in rows)
            may_train = reasons.pop("", 0)
            return Standing(db.feedback.stats(scope), may_train, dict(reasons))

        return await self._database.run(counted)

    async def next(self, scope: str, *, after: str | None = None) -> Ticket | None:
        """Return the row that follows another in the queue, from its beginning again at its end."""
        return await self._database.run(lambda db: _ticket(db, _queue(db, scope).behind(after)))

    async def get(self, scope: str, feedback_id: str) -> Feedback:
        """Return a row of the scope. Raises NotFound."""
        return await self._database.run(lambda db: _of_scope(db, scope, feedback_id))

    async def search(self, scope: str, wanted: Wanted) -> list[FeedbackRow]:
        """Return the rows that are wanted, newest first."""
        return await self._database.run(lambda db: db.feedback.search(scope, wanted))

    async def accept(self, scope: str, feedback_id: str, *, actor: str) -> Ticket | None:
        """Let a row train; return the next one."""
        return await self._decide(
            scope, feedback_id, lambda db: db.feedback.accept(feedback_id, actor)
        )

    async def drop(self, scope: str, feedback_id: str, *, actor: str) -> Ticket | None:
        """Leave a row out of training; return the next one."""
        return await self._decide(
            scope, feedback_id, lambda db: db.feedback.drop(feedback_id, actor)
        )

    async def edit(self, scope: str, feedback_id: str, text: str, *, actor: str) -> Ticket | None:
        """Let a correction train with other words; return the next row. Raises InvalidInput."""
        clean = text.replace("\x00", "").strip()
        if len(clean) > MAX_CORRECTION_CHARS:
            raise InvalidInput(
                f"the correction has {len(clean)} characters and {MAX_CORRECTION_CHARS} are allowed"
            )
        return await self._decide(
            scope, feedback_id, lambda db: db.feedback.edit(feedback_id, clean, actor)
        )

    async def _decide(
        self, scope: str, feedback_id: str, decision: Callable[[Database], Feedback]
    ) -> Ticket | None:
        def decided(db: Database) -> Ticket | None:
            with db.transaction():
                _of_scope(db, scope, feedback_id)
                queue = _queue(db, scope).behind(feedback_id)
                decision(db)
                return _ticket(db, queue.without(feedback_id))

        return await self._database.run(decided)


def _of_scope(db: Database, scope: str, feedback_id: str) -> Feedback:
    feedback = db.feedback.get(feedback_id)
    if db.replies.get(feedback.reply_id).scope != scope:
        raise NotFound(f"feedback {feedback_id!r}: there is no such row in {scope}")
    return feedback


@dataclass(frozen=True, slots=True)
class _Queue:
    """What somebody should look at, in the order to look at it, and what looks planted of it."""

    rows: list[FeedbackRow]
    aside: dict[str, str]

    def behind(self, feedback_id: str | None) -> _Queue:
        """Return the queue, beginning behind a row; that one comes last."""
        places = [n for n, row in enumerate(self.rows, start=1) if row.feedback.id == feedback_id]
        start = places[0] if places else 0
        return _Queue([*self.rows[start:], *self.rows[:start]], self.aside)

    def without(self, feedback_id: str) -> _Queue:
        """Return the queue without a row."""
        return _Queue([row for row in self.rows if row.feedback.id != feedback_id], self.aside)


def _queue(db: Database, scope: str) -> _Queue:
    """Return what was not looked at yet, oldest first, with what looks planted among it."""
    rows = db.feedback.rows(scope)
    aside = _aside(rows)
    waiting = db.feedback.review_queue(scope, QUEUE)
    known = {row.feedback.id for row in waiting}
    waiting += [row for row in rows if row.feedback.id in aside and row.feedback.id not in known]
    return _Queue(sorted(waiting, key=lambda row: (row.feedback.at, row.feedback.id)), aside)


def _ticket(db: Database, queue: _Queue) -> Ticket | None:
    if not queue.rows:
        return None
    row = queue.rows[0]
    person = db.people.get(row.feedback.person_id)
    return Ticket(row, person, _flag(db, row, queue.aside), len(queue.rows))


def _flag(db: Database, row: FeedbackRow, aside: dict[str, str]) -> Flag:
    if row.feedback.id in aside:
        return "dictated" if aside[row.feedback.id] == DICTATED else "swarm"
    if row.feedback.kind == "correction":
        return "correction"
    if row.feedback.kind in ("up", "down"):
        if row.feedback.reasons:
            return "reasons"
        said = db.feedback.of_reply(row.feedback.reply_id)
        if len({one.kind for one in said if one.kind in ("up", "down") and not one.dropped}) > 1:
            return "disagree"
    return "burst"


def _aside(rows: list[FeedbackRow]) -> dict[str, str]:
    """Return what looks planted of what else might train, by feedback id."""
    might = [row for row in rows if not _why_not(row)]
    return suspicious(sorted(might, key=lambda row: (row.feedback.at, row.feedback.id)))


def _why_not(row: FeedbackRow) -> str:
    """Return why a row may not train, or ''."""
    if row.feedback.dropped:
        return "reviewed out"
    if not row.prompt:
        return "not kept"
    return "" if row.all_consented else "no consent"
