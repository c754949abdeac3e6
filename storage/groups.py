"""Which group's servers this database holds, and over how many shards they were dealt out last.

Invariant: one row at most; whoever serves Discord from this database said it was theirs. Who may
take it over is decided elsewhere.
"""

from __future__ import annotations

from core.records import utc_now
from core.shares import Group, ShardShare
from storage.connection import Connection
from storage.events import EventStore


class GroupStore:
    """The table `discord_group`."""

    def __init__(self, connection: Connection, events: EventStore) -> None:
        self._connection = connection
        self._events = events

    # -- writing

    def claim(self, share: ShardShare, *, actor: str) -> None:
        """Store that this database is this group's from now on. Idempotent."""
        with self._connection.transaction():
            if self.claimed() == share:
                return
            self._connection.run(
                """INSERT INTO discord_group(id, number, total, shards, claimed_at)
                VALUES (1, ?, ?, ?, ?) ON CONFLICT(id) DO UPDATE SET number = excluded.number,
                total = excluded.total, shards = excluded.shards, claimed_at = excluded.claimed_at
                """,
                (share.group.number, share.group.total, share.shards, utc_now()),
            )
            self._events.add(actor, "group.claimed", str(share.group), shards=share.shards)

    # -- reading

    def claimed(self) -> ShardShare | None:
        """Return whose this database is; None while nobody served Discord from it."""
        row = self._connection.one("SELECT number, total, shards FROM discord_group")
        return ShardShare(Group(row["number"], row["total"]), row["shards"]) if row else None
