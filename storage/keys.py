"""API keys: who may speak to the HTTP API, as what, for which scope.

Invariant: only a SHA-256 of a key is ever stored; a row is never removed, so that a revoked name
stays known. Knows neither how keys look nor how they are sent.
"""

from __future__ import annotations

import hmac
from typing import Any

from core.errors import Conflict, NotFound
from core.records import ApiKey, ApiRole, utc_now
from storage.connection import Connection
from storage.events import EventStore


class KeyStore:
    """The table `api_keys`."""

    def __init__(self, connection: Connection, events: EventStore) -> None:
        self._connection = connection
        self._events = events

    # -- writing

    def add(
        self,
        name: str,
        sha256: str,
        *,
        role: ApiRole,
        scope: str,
        consented: bool,
        actor: str,
    ) -> ApiKey:
        """Store a new key by its hash; a revoked name may be given out again.

        Raises Conflict while the name has a key that is not revoked.
        """
        with self._connection.transaction():
            known = self._row(name)
            if known and known["revoked_at"] is None:
                raise Conflict(
                    f"key {name!r}: there is one already; revoke it first, or choose another name"
                )
            self._connection.run(
                """INSERT INTO api_keys(name, sha256, role, scope, consented, created_at)
                VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT(name) DO UPDATE SET sha256 = excluded.sha256,
                role = excluded.role, scope = excluded.scope, consented = excluded.consented,
                created_at = excluded.created_at, revoked_at = NULL""",
                (name, sha256, role, scope, int(consented), utc_now()),
            )
            self._events.add(actor, "key.added", name, role=role, scope=scope, consented=consented)
            return self.get(name)

    def revoke(self, name: str, *, actor: str) -> ApiKey:
        """Refuse a key from now on. Idempotent. Raises NotFound."""
        with self._connection.transaction():
            if self.get(name).revoked_at is None:
                self._connection.run(
                    "UPDATE api_keys SET revoked_at = ? WHERE name = ?", (utc_now(), name)
                )
                self._events.add(actor, "key.revoked", name)
            return self.get(name)

    # -- reading

    def get(self, name: str) -> ApiKey:
        """Return a key's row. Raises NotFound."""
        row = self._row(name)
        if row is None:
            known = ", ".join(key.name for key in self.list()) or "none yet"
            raise NotFound(f"key {name!r}: there is no such key; known: {known}")
        return _to_key(row)

    def list(self) -> list[ApiKey]:
        """Return every key by name, the revoked ones too."""
        return [_to_key(row) for row in self._connection.all(f"{_SELECT} ORDER BY name")]

    def find(self, sha256: str) -> ApiKey | None:
        """Return the key with this hash that is not revoked, or None.

        Every hash is compared in constant time, so the time taken tells nothing about any.
        """
        found = None
        for row in self._connection.all(
            "SELECT name, sha256 FROM api_keys WHERE revoked_at IS NULL ORDER BY name"
        ):
            if hmac.compare_digest(row["sha256"], sha256):
                found = row["name"]
        return self.get(found) if found else None

    def any(self) -> bool:
        """Say whether a key was ever made: from then on keys are asked for, revoked or not."""
        return bool(self._connection.value("SELECT EXISTS (SELECT 1 FROM api_keys)"))

    def _row(self, name: str) -> dict[str, Any] | None:
        return self._connection.one(f"{_SELECT} WHERE name = ?", (name,))


_SELECT = "SELECT name, role, scope, consented, created_at, revoked_at FROM api_keys"


def _to_key(row: dict[str, Any]) -> ApiKey:
    return ApiKey(**{**row, "consented": bool(row["consented"])})
