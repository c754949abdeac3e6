"""Trials: two adapters compared by what people choose, two replies at a time.

Invariant: a scope has one open trial of a kind for each pair of adapters; a person has one choice a
match, and the preference that training reads was stored by the same transaction. Tallies are
computed, never counted up, so a choice that is changed or forgotten is right at once.
"""

from __future__ import annotations

from typing import Literal

from core.errors import Conflict, InvalidInput, NotFound
from core.records import (
    Match,
    MatchChoice,
    MatchVote,
    Tally,
    Trial,
    TrialKind,
    TrialState,
    new_id,
    utc_now,
)
from storage.connection import Connection
from storage.events import EventStore
from storage.feedback import FeedbackStore
from storage.rows import to_match, to_trial

_TALLY = """SELECT coalesce(sum(v.choice = 'candidate'), 0) AS candidate,
    coalesce(sum(v.choice = 'reference'), 0) AS reference,
    coalesce(sum(v.choice = 'tie'), 0) AS ties, count(DISTINCT v.person_id) AS people
    FROM match_votes v JOIN matches m ON m.id = v.match_id WHERE m.trial_id = ?"""


class TrialStore:
    """The tables `trials`, `matches` and `match_votes`."""

    def __init__(self, connection: Connection, events: EventStore, feedback: FeedbackStore) -> None:
        self._connection = connection
        self._events = events
        self._feedback = feedback

    # -- writing

    def ensure(
        self,
        scope: str,
        kind: TrialKind,
        *,
        candidate: str,
        reference: str,
        share: float | None = None,
    ) -> Trial:
        """Return the open trial of these two adapters, made if there is none; `share` is for a new
        one only.
        """
        about = (scope, kind, candidate, reference)
        with self._connection.transaction():
            row = self._open(about)
            if row is None:
                now, trial_id = utc_now(), new_id("t")
                self._connection.run(
                    """INSERT INTO trials(scope, kind, candidate, reference, id, created_at,
                    updated_at, share) VALUES (?, ?, ?, ?, ?, ?, ?, ?)""",
                    (*about, trial_id, now, now, share),
                )
                self._events.add(
                    "system", "trial.opened", trial_id, kind=kind, of=[candidate, reference]
                )
                return self.get(trial_id)
            return row

    def close(
        self,
        trial_id: str,
        state: Literal["better", "worse", "undecided"],
        *,
        actor: str,
        why: str = "",
    ) -> Trial:
        """End a trial with what it showed of the candidate. Idempotent.

        Raises NotFound, and Conflict if it ended otherwise.
        """
        with self._connection.transaction():
            before: TrialState = self.get(trial_id).state
            if before not in ("open", state):
                raise Conflict(f"trial {trial_id}: has ended ({before}) and cannot become {state}")
            if before == "open":
                self._connection.run(
                    "UPDATE trials SET state = ?, updated_at = ? WHERE id = ?",
                    (state, utc_now(), trial_id),
                )
                about = {"why": why} if why else {}
                self._events.add(actor, f"trial.{state}", trial_id, **about)
            return self.get(trial_id)

    def add_match(
        self, trial_id: str, *, candidate_reply: str, reference_reply: str, candidate_first: bool
    ) -> Match:
        """Store that two replies are shown side by side, in which order. Raises NotFound."""
        self.get(trial_id)
        match = Match(
            new_id("m"), trial_id, candidate_reply, reference_reply, candidate_first, utc_now()
        )
        self._connection.run(
            """INSERT INTO matches(id, trial_id, candidate_reply, reference_reply, candidate_first,
            at) VALUES (?, ?, ?, ?, ?, ?)""",
            (match.id, trial_id, candidate_reply, reference_reply, int(candidate_first), match.at),
        )
        return match

    def choose(
        self, match_id: str, person_id: str, choice: Literal["first", "second", "tie"]
    ) -> MatchVote:
        """Store which of the two a person finds better; the last choice wins. Idempotent.

        The preference between the replies is stored with it, or goes on a tie. Raises NotFound.
        """
        with self._connection.transaction():
            match = self.match(match_id)
            chosen = _chosen(match, choice)
            before = self._vote(match_id, person_id)
            if before and before.choice == chosen:
                return before
            vote = MatchVote(match_id, person_id, chosen, utc_now())
            self._connection.run(
                """INSERT INTO match_votes(match_id, person_id, choice, at) VALUES (?, ?, ?, ?)
                ON CONFLICT DO UPDATE SET choice = excluded.choice, at = excluded.at""",
                (match_id, person_id, chosen, vote.at),
            )
            self._prefer(match, vote)
            self._events.add(person_id, "match.chosen", match_id, choice=chosen)
            return vote

    # -- reading

    def get(self, trial_id: str) -> Trial:
        """Return a trial. Raises NotFound."""
        row = self._connection.one("SELECT * FROM trials WHERE id = ?", (trial_id,))
        if row is None:
            raise NotFound(f"trial {trial_id!r}: there is no such trial")
        return to_trial(row)

    def match(self, match_id: str) -> Match:
        """Return a match. Raises NotFound."""
        row = self._connection.one("SELECT * FROM matches WHERE id = ?", (match_id,))
        if row is None:
            raise NotFound(f"match {match_id!r}: there is no such match (it may have been deleted)")
        return to_match(row)

    def tally(self, trial_id: str) -> Tally:
        """Return the choices of a trial as they stand. Raises NotFound."""
        self.get(trial_id)
        return Tally(**(self._connection.one(_TALLY, (trial_id,)) or {}))

    def canary(self, scope: str) -> Trial | None:
        """Return the canary's trial that goes on in a scope, or None."""
        row = self._connection.one(
            "SELECT * FROM trials WHERE scope = ? AND kind = 'canary' AND state = 'open'", (scope,)
        )
        return to_trial(row) if row else None

    def list(self, scope: str) -> list[Trial]:
        """Return the trials of a scope, newest first."""
        rows = self._connection.all(
            "SELECT * FROM trials WHERE scope = ? ORDER BY created_at DESC, rowid DESC", (scope,)
        )
        return [to_trial(row) for row in rows]

    # -- private

    def _open(self, about: tuple[str, str, str, str]) -> Trial | None:
        row = self._connection.one(
            """SELECT * FROM trials WHERE scope = ? AND kind = ? AND candidate = ?
            AND reference = ? AND state = 'open'""",
            about,
        )
        return to_trial(row) if row else None

    def _vote(self, match_id: str, person_id: str) -> MatchVote | None:
        row = self._connection.one(
            "SELECT * FROM match_votes WHERE match_id = ? AND person_id = ?", (match_id, person_id)
        )
        return MatchVote(**row) if row else None

    def _prefer(self, match: Match, vote: MatchVote) -> None:
        candidate, reference = match.candidate_reply, match.reference_reply
        if vote.choice == "tie":
            self._feedback.unprefer(candidate, vote.person_id, reference)
        elif vote.choice == "candidate":
            self._feedback.prefer(candidate, vote.person_id, reference)
        else:
            self._feedback.prefer(reference, vote.person_id, candidate)


def _chosen(match: Match, choice: str) -> MatchChoice:
    if choice == "tie":
        return "tie"
    if choice not in ("first", "second"):
        raise InvalidInput(f"choice {choice!r}: expected first, second or tie")
    return "candidate" if (choice == "first") == match.candidate_first else "reference"
