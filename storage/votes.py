"""Feedback: one row for each reply, person and kind; a thumb up and a thumb down exclude one
another.

Invariant: a changed mind updates the row, a withdrawn vote removes it, and every such change
appends its event (ids and kinds, never words) in the same transaction. What training reads is in
storage.signals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from core.errors import Conflict, InvalidInput, NotFound
from core.records import Feedback, SignalKind, new_id, utc_now
from storage.connection import Connection
from storage.events import EventStore
from storage.rows import dump, to_feedback
from storage.signals import SignalReader


class VoteStore(SignalReader):
    """The table `feedback`; the joins over it are inherited from SignalReader."""

    def __init__(self, connection: Connection, events: EventStore) -> None:
        super().__init__(connection)
        self._events = events

    # -- writing

    def vote(
        self,
        reply_id: str,
        person_id: str,
        kind: Literal["up", "down"],
        *,
        reasons: Sequence[str] = (),
        at: str | None = None,
    ) -> Feedback:
        """Store a thumb; the person's last one on this reply wins. Idempotent."""
        if kind not in ("up", "down"):
            raise InvalidInput(f"vote {kind!r}: expected up or down")
        return self._put(reply_id, person_id, kind, reasons=tuple(reasons), at=at)

    def correct(
        self, reply_id: str, person_id: str, text: str, *, at: str | None = None
    ) -> Feedback:
        """Store how the reply should have read; the person's last correction wins. Idempotent.

        Raises Conflict on a reply that is not kept.
        """
        with self._connection.transaction():
            if self._connection.value("SELECT NOT kept FROM replies WHERE id = ?", (reply_id,)):
                raise Conflict(
                    f"reply {reply_id!r}: nothing of this conversation is kept, so a correction "
                    "cannot be stored either; vote, or correct a reply that is kept"
                )
            return self._put(reply_id, person_id, "correction", text=text, at=at)

    def regenerate(self, reply_id: str, person_id: str, *, at: str | None = None) -> Feedback:
        """Store that a person asked for another version of the reply. Idempotent."""
        return self._put(reply_id, person_id, "regenerate", at=at)

    def prefer(
        self, reply_id: str, person_id: str, over: str, *, at: str | None = None
    ) -> Feedback:
        """Store that `reply_id` is the better of two; the opposite choice, if made before, goes."""
        if reply_id == over:
            raise InvalidInput(
                f"reply {reply_id!r} cannot be preferred over itself; name two replies"
            )
        with self._connection.transaction():
            self._require_reply(over)
            self._connection.run(
                """DELETE FROM feedback WHERE reply_id = ? AND person_id = ? AND kind = 'preference'
                AND other_reply_id = ?""",
                (over, person_id, reply_id),
            )
            return self._put(reply_id, person_id, "preference", other_reply_id=over, at=at)

    def withdraw(self, reply_id: str, person_id: str, *, at: str | None = None) -> bool:
        """Take a thumb back; False if there was none. The event keeps that there was one."""
        with self._connection.transaction():
            row = self._slot(reply_id, person_id, "up")
            if row is None:
                return False
            self._connection.run("DELETE FROM feedback WHERE id = ?", (row.id,))
            self._events.add(
                person_id, "feedback.withdrawn", reply_id, feedback=row.id, kind=row.kind, at=at
            )
        return True

    def unprefer(self, reply_id: str, person_id: str, other: str) -> bool:
        """Take a preference between two replies back, whichever way; False if there was none."""
        with self._connection.transaction():
            gone = self._connection.all(
                """DELETE FROM feedback WHERE person_id = ? AND kind = 'preference'
                AND (reply_id, other_reply_id) IN (VALUES (?, ?), (?, ?)) RETURNING id, reply_id""",
                (person_id, reply_id, other, other, reply_id),
            )
            for row in gone:
                self._events.add(
                    person_id,
                    "feedback.withdrawn",
                    row["reply_id"],
                    feedback=row["id"],
                    kind="preference",
                )
        return bool(gone)

    # -- reading

    def get(self, feedback_id: str) -> Feedback:
        """Return a row. Raises NotFound."""
        row = self._connection.one("SELECT * FROM feedback WHERE id = ?", (feedback_id,))
        if row is None:
            raise NotFound(f"feedback {feedback_id!r}: there is no such row (it may be withdrawn)")
        return to_feedback(row)

    def vote_of(self, reply_id: str, person_id: str) -> Feedback | None:
        """Return a person's thumb on a reply, or None."""
        return self._slot(reply_id, person_id, "up")

    def of_reply(self, reply_id: str) -> list[Feedback]:
        """Return everything said of a reply, oldest first."""
        rows = self._connection.all(
            "SELECT * FROM feedback WHERE reply_id = ? ORDER BY at, rowid", (reply_id,)
        )
        return [to_feedback(row) for row in rows]

    # -- private

    def _put(
        self,
        reply_id: str,
        person_id: str,
        kind: SignalKind,
        *,
        text: str | None = None,
        other_reply_id: str | None = None,
        reasons: tuple[str, ...] = (),
        at: str | None = None,
    ) -> Feedback:
        now = utc_now()
        with self._connection.transaction():
            self._require_reply(reply_id)
            before = self._slot(reply_id, person_id, kind)
            said = (kind, text, other_reply_id, reasons)
            if before and said == (before.kind, before.text, before.other_reply_id, before.reasons):
                return before
            values = (kind, text, other_reply_id, dump(reasons), at or now, now)
            if before:
                self._connection.run(
                    """UPDATE feedback SET kind = ?, text = ?, other_reply_id = ?, reasons = ?, at =
                    ?, recorded_at = ?, reviewed_at = NULL WHERE id = ?""",
                    (*values, before.id),
                )
            else:
                self._connection.run(
                    """INSERT INTO feedback(kind, text, other_reply_id, reasons, at, recorded_at,
                    id, reply_id, person_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
                    (*values, new_id("f"), reply_id, person_id),
                )
            after = self._slot(reply_id, person_id, kind)
            if after is None:
                raise NotFound(f"reply {reply_id!r}: the feedback just written is gone")
            self._events.add(
                person_id,
                f"feedback.{kind}",
                reply_id,
                feedback=after.id,
                before=before.kind if before else None,
            )
            return after

    def _slot(self, reply_id: str, person_id: str, kind: SignalKind) -> Feedback | None:
        row = self._connection.one(
            "SELECT * FROM feedback WHERE reply_id = ? AND person_id = ? AND slot = ?",
            (reply_id, person_id, "vote" if kind in ("up", "down") else kind),
        )
        return to_feedback(row) if row else None

    def _require_reply(self, reply_id: str) -> None:
        if not self._connection.one("SELECT 1 FROM replies WHERE id = ?", (reply_id,)):
            raise NotFound(f"reply {reply_id!r}: there is no such reply (it may have expired)")
