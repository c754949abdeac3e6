"""Reactions under a platform's messages, and the votes they stand for.

Invariant: the table mirrors which reactions are known, so that what happened in a time away is
found by difference; only a change of the mirror changes a vote. A person may hold both kinds on a
message: the later one counts. Knows ids only, and no emoji.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal, cast

from core.errors import InvalidInput
from core.records import Feedback
from storage.votes import VoteStore

Thumb = Literal["up", "down"]


class ReactionStore(VoteStore):
    """The table `reactions`."""

    # -- writing

    def react(self, message_id: str, person_id: str, kind: Thumb) -> Feedback | None:
        """Take over a new reaction as a vote on the reply that the message shows now.

        None if the message shows none, or the reaction was known.
        """
        with self._connection.transaction():
            reply_id = self._reply_shown(message_id)
            if reply_id is None or not self._mirror(message_id, person_id, kind):
                return None
            return self.vote(reply_id, person_id, kind)

    def unreact(self, message_id: str, person_id: str, kind: Thumb) -> bool:
        """Take over that a reaction went; False if it was not known.

        The vote goes if it is of this kind, or becomes the other kind if that reaction is still
        there. A vote changed by other means since stays.
        """
        with self._connection.transaction():
            gone = self._connection.run(
                "DELETE FROM reactions WHERE message_id = ? AND person_id = ? AND kind = ?",
                (message_id, person_id, kind),
            )
            reply_id = self._reply_shown(message_id)
            if not gone or reply_id is None:
                return False
            vote = self.vote_of(reply_id, person_id)
            if vote and vote.kind == kind:
                self._fall_back(reply_id, message_id, person_id, kind)
            return True

    def sync_reactions(self, message_id: str, seen: Mapping[str, Collection[str]]) -> int:
        """Take over which people's reactions a message has now, by kind; return how many changed.

        What came is applied before what went, so that a changed mind leaves the newer vote. A kind
        that `seen` does not name counts as having none.
        """
        with self._connection.transaction():
            known = {(person, kind) for person, kind in self._known(message_id)}
            now = {(person, kind) for kind, people in seen.items() for person in people}
            came = [
                self.react(message_id, person, cast(Thumb, kind))
                for person, kind in sorted(now - known)
            ]
            went = [
                self.unreact(message_id, person, cast(Thumb, kind))
                for person, kind in sorted(known - now)
            ]
        return sum(vote is not None for vote in came) + sum(went)

    # -- reading

    def reactions(self, message_id: str) -> set[tuple[str, str]]:
        """Return the reactions known of a message: (id on the platform, kind)."""
        rows = self._connection.all(
            """SELECT p.platform_id, m.kind FROM reactions m JOIN people p ON p.id = m.person_id
            WHERE m.message_id = ?""",
            (message_id,),
        )
        return {(row["platform_id"], row["kind"]) for row in rows}

    # -- private

    def _mirror(self, message_id: str, person_id: str, kind: Thumb) -> bool:
        if kind not in ("up", "down"):
            raise InvalidInput(f"reaction {kind!r}: expected up or down")
        return bool(
            self._connection.run(
                """INSERT INTO reactions(message_id, person_id, kind) VALUES (?, ?, ?)
                ON CONFLICT DO NOTHING""",
                (message_id, person_id, kind),
            )
        )

    def _fall_back(self, reply_id: str, message_id: str, person_id: str, kind: Thumb) -> None:
        other: Thumb = "down" if kind == "up" else "up"
        if (person_id, other) in self._known(message_id):
            self.vote(reply_id, person_id, other)
        else:
            self.withdraw(reply_id, person_id)

    def _known(self, message_id: str) -> list[tuple[str, str]]:
        rows = self._connection.all(
            "SELECT person_id, kind FROM reactions WHERE message_id = ?", (message_id,)
        )
        return [(row["person_id"], row["kind"]) for row in rows]

    def _reply_shown(self, message_id: str) -> str | None:
        found = self._connection.value(
            "SELECT reply_id FROM reply_messages WHERE message_id = ?", (message_id,)
        )
        return str(found) if found else None
