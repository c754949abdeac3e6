"""What a canary's trial rests on: which replies take part in it, and the votes on them.

Invariant: a talk is on one side of a trial for good. A talk is what goes on without a long pause in
one conversation, or in a channel where everything is listened to; one that was going on before the
trial has no side. Tallies are read from the votes as they stand. Knows no rule of what decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.canary import BlindChoice, Thumb
from core.records import Trial
from storage.connection import Connection
from storage.rows import dump

_NEWEST = """SELECT r.id, t.trial_id, t.talk, t.canary
    FROM replies r LEFT JOIN trial_replies t ON t.reply_id = r.id
    WHERE r.id IN (SELECT id FROM replies WHERE conversation_id = :conversation AND at > :since
        UNION SELECT reply_id FROM reply_messages
        WHERE message_id IN (SELECT value FROM json_each(:sources)))
    AND r.at > :since
    AND NOT EXISTS (SELECT 1 FROM matches m WHERE m.candidate_reply = r.id)
    AND NOT EXISTS (SELECT 1 FROM matches m WHERE m.reference_reply = r.id)
    ORDER BY r.at DESC, r.rowid DESC LIMIT 1"""
"""Replies of the arena are passed over: which version wrote them was not drawn."""

_THUMBS = """SELECT f.person_id, t.talk, t.canary, f.kind
    FROM trial_replies t JOIN feedback f ON f.reply_id = t.reply_id
    WHERE t.trial_id = ? AND f.kind IN ('up', 'down') AND NOT f.dropped ORDER BY f.rowid"""

_CHOICES = """SELECT v.person_id, v.match_id, v.choice
    FROM trials a JOIN matches m ON m.trial_id = a.id JOIN match_votes v ON v.match_id = m.id
    WHERE a.kind = 'arena' AND a.scope = ? AND a.candidate = ? AND a.reference = ? AND m.at >= ?
    AND v.choice <> 'tie' ORDER BY v.at, v.match_id"""


@dataclass(frozen=True, slots=True)
class Part:
    """A reply's part in a trial: the talk it belongs to, and whether that is the canary's."""

    trial_id: str
    talk: str
    canary: bool


@dataclass(frozen=True, slots=True)
class Before:
    """What a talk's newest reply was; `part` is None for one that took part in no trial."""

    part: Part | None


class CanaryStore:
    """The table `trial_replies`, and the votes of a canary's trial."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # -- writing

    def take_part(self, reply_id: str, part: Part) -> None:
        """Store which side of a trial a reply is on. Raises NotFound."""
        self._connection.run(
            """INSERT INTO trial_replies(reply_id, trial_id, talk, canary) VALUES (?, ?, ?, ?)
            ON CONFLICT DO NOTHING""",
            (reply_id, part.trial_id, part.talk, int(part.canary)),
        )

    # -- reading

    def before(self, conversation_id: str, sources: Sequence[str], *, since: str) -> Before | None:
        """Return what the newest reply of a talk was; None if there is none since then.

        `sources` are the platform's messages that are in sight: a talk goes on under another
        conversation where the older ones are out of it.
        """
        about = {"conversation": conversation_id, "sources": dump(list(sources)), "since": since}
        row = self._connection.one(_NEWEST, about)
        if row is None:
            return None
        if row["trial_id"] is None:
            return Before(None)
        return Before(Part(row["trial_id"], row["talk"], bool(row["canary"])))

    def thumbs(self, trial_id: str) -> list[Thumb]:
        """Return the thumbs on the replies of a trial, in the order they were first given."""
        return [
            Thumb(row["person_id"], row["talk"], bool(row["canary"]), row["kind"] == "up")
            for row in self._connection.all(_THUMBS, (trial_id,))
        ]

    def choices(self, trial: Trial) -> list[BlindChoice]:
        """Return what people chose in the arena between the two since the trial began, ties left
        out.
        """
        about = (trial.scope, trial.candidate, trial.reference, trial.created_at)
        return [
            BlindChoice(row["person_id"], row["match_id"], row["choice"] == "candidate")
            for row in self._connection.all(_CHOICES, about)
        ]
