"""Scopes: the worlds with an adapter family of their own.

Their pointers (live, previous, canary) are moved by storage.adapters only.
"""

from __future__ import annotations

from core.errors import NotFound
from core.manifest import check_scope
from core.records import Scope, utc_now
from storage.connection import Connection
from storage.events import EventStore
from storage.rows import to_scope


class ScopeStore:
    """The table `scopes`."""

    def __init__(self, connection: Connection, events: EventStore) -> None:
        self._connection = connection
        self._events = events

    # -- writing

    def ensure(self, name: str, *, training_enabled: bool = True) -> Scope:
        """Return the scope, made if new; `training_enabled` is for a new one only.

        Raises InvalidInput for a name no directory could have.
        """
        row = self._row(name)
        if row:
            return row
        with self._connection.transaction():
            made = self._connection.run(
                """INSERT INTO scopes(name, training_enabled, created_at) VALUES (?, ?, ?)
                ON CONFLICT DO NOTHING""",
                (check_scope(name), int(training_enabled), utc_now()),
            )
            if made:
                self._events.add("system", "scope.created", name)
            return self.get(name)

    def set_persona(self, name: str, persona: str, *, actor: str) -> Scope:
        """Set the system prompt of a scope; empty means the configured one."""
        with self._connection.transaction():
            self._set(name, "UPDATE scopes SET persona = ? WHERE name = ?", persona)
            self._events.add(actor, "scope.persona", name, characters=len(persona))
            return self.get(name)

    def set_training(self, name: str, enabled: bool, actor: str) -> Scope:
        """Switch training on this scope's feedback on or off."""
        with self._connection.transaction():
            self._set(name, "UPDATE scopes SET training_enabled = ? WHERE name = ?", int(enabled))
            self._events.add(actor, "scope.training", name, enabled=enabled)
            return self.get(name)

    # -- reading

    def get(self, name: str) -> Scope:
        """Return a scope. Raises NotFound with the names there are."""
        scope = self._row(name)
        if scope is None:
            known = ", ".join(other.name for other in self.list()) or "none yet"
            raise NotFound(f"scope {name!r}: there is no such scope; known: {known}")
        return scope

    def list(self) -> list[Scope]:
        """Return every scope by name."""
        return [to_scope(row) for row in self._connection.all("SELECT * FROM scopes ORDER BY name")]

    def of_conversation(self, conversation_id: str) -> Scope:
        """Return the scope a conversation belongs to. Raises NotFound."""
        row = self._connection.one(
            "SELECT s.* FROM scopes s JOIN conversations c ON c.scope = s.name WHERE c.id = ?",
            (conversation_id,),
        )
        if row is None:
            raise NotFound(f"conversation {conversation_id!r}: there is no such conversation")
        return to_scope(row)

    def _row(self, name: str) -> Scope | None:
        row = self._connection.one("SELECT * FROM scopes WHERE name = ?", (name,))
        return to_scope(row) if row else None

    def _set(self, name: str, statement: str, value: str | int) -> None:
        self.get(name)
        self._connection.run(statement, (value, name))
