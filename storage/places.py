"""Places: what a server (`discord/<server>`) or a channel in it (`discord/<server>/<channel>`) has
set for itself.

Invariant: a key's last segment is whole: `discord/1` holds `discord/1/2` and not `discord/12`. What
the settings mean is known elsewhere; here they are JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from core.records import utc_now
from storage.connection import Connection
from storage.events import EventStore
from storage.rows import dump, under

_HERE = under("key")

Settings = dict[str, Any]


class PlaceStore:
    """The table `places`."""

    def __init__(self, connection: Connection, events: EventStore) -> None:
        self._connection = connection
        self._events = events

    # -- writing

    def put(self, key: str, settings: Mapping[str, Any], *, actor: str) -> None:
        """Store the settings of a place in place of all it had. Idempotent."""
        after = json.loads(dump(dict(settings)))
        with self._connection.transaction():
            before = self.get(key)
            changed = sorted(
                name for name in {*before, *after} if before.get(name) != after.get(name)
            )
            self._connection.run(
                """INSERT INTO places(key, settings, updated_at) VALUES (?, ?, ?)
                ON CONFLICT(key) DO UPDATE SET settings = excluded.settings,
                updated_at = excluded.updated_at WHERE settings <> excluded.settings""",
                (key, dump(after), utc_now()),
            )
            if changed:
                self._events.add(actor, "place.changed", key, settings=changed)

    def remove(self, prefix: str, *, actor: str = "system") -> int:
        """Delete a place and those within it; return how many. Idempotent."""
        with self._connection.transaction():
            count = self._connection.run(
                f"DELETE FROM places WHERE {_HERE}",  # noqa: S608 # a constant
                {"prefix": prefix},
            )
            if count:
                self._events.add(actor, "place.removed", prefix, count=count)
        return count

    # -- reading

    def get(self, key: str) -> Settings:
        """Return what a place has set, empty for one not known."""
        text = self._connection.value("SELECT settings FROM places WHERE key = ?", (key,))
        return dict(json.loads(text)) if text else {}

    def list(self, prefix: str) -> dict[str, Settings]:
        """Return the settings of a place and of those within it, by key."""
        rows = self._connection.all(
            f"SELECT key, settings FROM places WHERE {_HERE} ORDER BY key",  # noqa: S608 # a constant
            {"prefix": prefix},
        )
        return {row["key"]: json.loads(row["settings"]) for row in rows}
