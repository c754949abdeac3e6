"""Review: what an admin should look at before it trains, and what they decide.

Invariant: a decision marks the row as reviewed until its person changes it; events hold ids and
figures, never words. Knows only kept replies: of others there is nothing to read.
"""

from __future__ import annotations

from core.errors import Conflict, InvalidInput
from core.records import Feedback, FeedbackRow, utc_now
from storage.rows import to_feedback_row
from storage.signals import ROWS
from storage.votes import VoteStore

BURST_ROWS = 20
BURST_S = 3600
"""More rows than this by one person within this time are looked at, each of them."""

_SECOND = "CAST(strftime('%s', f.at) AS INTEGER)"

_PENDING = f"""r.scope = :scope AND r.kept AND NOT f.dropped AND f.reviewed_at IS NULL AND (
    f.kind = 'correction'
    OR (f.kind IN ('up', 'down') AND f.reasons <> '[]')
    OR (f.kind IN ('up', 'down') AND EXISTS (SELECT 1 FROM feedback g WHERE g.reply_id = f.reply_id
        AND g.slot = 'vote' AND g.kind <> f.kind AND NOT g.dropped))
    OR EXISTS (SELECT 1 FROM bursts b WHERE b.person_id = f.person_id
        AND {_SECOND} BETWEEN b.end_s - {BURST_S} AND b.end_s))"""  # noqa: S608 # constants

_BURSTS = f"""WITH windows AS (
        SELECT f.person_id, {_SECOND} AS end_s, count(*) OVER (PARTITION BY f.person_id
            ORDER BY {_SECOND} RANGE BETWEEN {BURST_S} PRECEDING AND CURRENT ROW) AS many
        FROM feedback f JOIN replies r ON r.id = f.reply_id WHERE r.scope = :scope),
    bursts AS (SELECT DISTINCT person_id, end_s FROM windows WHERE many > {BURST_ROWS})"""  # noqa: S608 # constants

_QUEUE = f"{_BURSTS} {ROWS} WHERE {_PENDING} ORDER BY f.at, f.rowid LIMIT :limit"


class ReviewStore(VoteStore):
    """The columns `dropped` and `reviewed_at` of `feedback`."""

    # -- writing

    def drop(self, feedback_id: str, actor: str) -> Feedback:
        """Review a row out of training; it stays stored. Idempotent. Raises NotFound."""
        with self._connection.transaction():
            before = self.get(feedback_id)
            self._mark(feedback_id)
            if not before.dropped:
                self._connection.run("UPDATE feedback SET dropped = 1 WHERE id = ?", (feedback_id,))
                self._events.add(actor, "feedback.dropped", before.reply_id, feedback=feedback_id)
            return self.get(feedback_id)

    def accept(self, feedback_id: str, actor: str) -> Feedback:
        """Let a row train as it is. Idempotent. Raises NotFound, and Conflict if it is dropped."""
        with self._connection.transaction():
            before = self.get(feedback_id)
            _require_undropped(before)
            if before.reviewed_at is None:
                self._mark(feedback_id)
                self._events.add(actor, "feedback.accepted", before.reply_id, feedback=feedback_id)
            return self.get(feedback_id)

    def edit(self, feedback_id: str, text: str, actor: str) -> Feedback:
        """Let a correction train with other words. Idempotent.

        Raises NotFound, Conflict for a dropped row and for what is no correction, InvalidInput for
        an empty text.
        """
        if not text.strip():
            raise InvalidInput(f"feedback {feedback_id!r}: the new text is empty; drop it instead")
        with self._connection.transaction():
            before = self.get(feedback_id)
            _require_undropped(before)
            if before.kind != "correction":
                raise Conflict(
                    f"feedback {feedback_id!r}: is of kind {before.kind}, only a correction has "
                    "words to edit; accept it or drop it"
                )
            if before.text != text:
                self._connection.run(
                    "UPDATE feedback SET text = ?, recorded_at = ? WHERE id = ?",
                    (text, utc_now(), feedback_id),
                )
                self._events.add(actor, "feedback.edited", before.reply_id, feedback=feedback_id)
            self._mark(feedback_id)
            return self.get(feedback_id)

    # -- reading

    def review_queue(self, scope: str, limit: int = 25) -> list[FeedbackRow]:
        """Return what nobody reviewed and somebody should, oldest first.

        Corrections, thumbs with reasons, thumbs that disagree on a reply, and what a person gave in
        a burst of more than BURST_ROWS rows within BURST_S seconds.
        """
        about = {"scope": scope, "limit": limit}
        return [to_feedback_row(row) for row in self._connection.all(_QUEUE, about)]

    # -- private

    def _mark(self, feedback_id: str) -> None:
        self._connection.run(
            "UPDATE feedback SET reviewed_at = coalesce(reviewed_at, ?) WHERE id = ?",
            (utc_now(), feedback_id),
        )


def _require_undropped(row: Feedback) -> None:
    if row.dropped:
        raise Conflict(f"feedback {row.id!r}: was dropped and does not train; leave it so")
