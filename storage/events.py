"""The audit trail: who did what to what, and when.

Invariant: append-only, held by triggers. Details hold ids and figures, never anything a person
wrote, so forgetting somebody needs no change here.
"""

from __future__ import annotations

from typing import Any

from core.records import Event, utc_now
from storage.connection import Connection
from storage.rows import dump, to_event


class EventStore:
    """The table `events`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # -- writing

    def add(self, actor: str, action: str, subject: str, **detail: Any) -> None:
        """Append a line; inside a transaction it commits with it."""
        self._connection.run(
            "INSERT INTO events(at, actor, action, subject, detail) VALUES (?, ?, ?, ?, ?)",
            (utc_now(), actor, action, subject, dump(detail)),
        )

    # -- reading

    def list(self, limit: int = 100, subject: str | None = None) -> list[Event]:
        """Return the newest lines, newest first, of everything or of one subject."""
        rows = self._connection.all(
            "SELECT * FROM events WHERE subject = ? OR ? IS NULL ORDER BY id DESC LIMIT ?",
            (subject, subject, limit),
        )
        return [to_event(row) for row in rows]
