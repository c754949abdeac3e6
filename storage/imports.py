"""Signals from outside: conversations and votes made elsewhere, stored as if they had been made
here.

Invariant: the same signal twice is stored once. A reply is known again by its content, so rows
exported from this database find the replies they came from.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.generation import Message, Sampling
from core.records import Person, SignalKind, new_id, utc_now
from storage.connection import Connection
from storage.people import PeopleStore
from storage.rows import content_sha256, dump_messages, dump_sampling
from storage.scopes import ScopeStore

IMPORT_PLATFORM = "import"
IMPORTED_ADAPTER = "imported"
"""Stands where a reply's adapter is named: which model wrote it is not known."""


@dataclass(frozen=True, slots=True)
class ImportedSignal:
    """One signal on one reply. `other` is the reply that lost; `at` None means now."""

    scope: str
    user: str
    prompt: tuple[Message, ...]
    reply: str
    kind: SignalKind
    text: str | None = None
    other: str | None = None
    at: str | None = None


class ImportStore:
    """Writes imported signals; reading them is storage.signals' business."""

    def __init__(self, connection: Connection, people: PeopleStore, scopes: ScopeStore) -> None:
        self._connection = connection
        self._people = people
        self._scopes = scopes

    def add(self, signal: ImportedSignal) -> bool:
        """Store a signal; False if it was there. Consent counts as given, unless refused."""
        with self._connection.transaction():
            self._scopes.ensure(signal.scope)
            person = self._person(signal)
            reply_id = self._reply(signal, signal.reply, person)
            other_id = self._reply(signal, signal.other, person) if signal.other else None
            return self._put(signal, reply_id, other_id, person)

    def _person(self, signal: ImportedSignal) -> Person:
        """Find the person an export named `platform:id`, or one of platform `import`."""
        platform, colon, platform_id = signal.user.partition(":")
        known = colon and self._connection.one(
            "SELECT 1 FROM people WHERE platform = ? AND platform_id = ?", (platform, platform_id)
        )
        if known:
            return self._people.ensure(platform, platform_id, at=signal.at)
        return self._people.ensure(
            IMPORT_PLATFORM, signal.user, display_name=signal.user, consent="given", at=signal.at
        )

    def _reply(self, signal: ImportedSignal, text: str, person: Person) -> str:
        content = content_sha256(signal.scope, signal.prompt, text)
        known = self._connection.value(
            "SELECT id FROM replies WHERE content_sha256 = ? ORDER BY at LIMIT 1", (content,)
        )
        if known:
            return str(known)
        reply_id = f"r_{content[:16]}"
        at = signal.at or utc_now()
        self._connection.run(
            """INSERT INTO conversations(id, scope, person_id, platform_key, created_at, updated_at)
            VALUES (?, ?, ?, ?, ?, ?)""",
            (
                conversation := f"c_{content[:16]}",
                signal.scope,
                person.id,
                f"import:{content}",
                at,
                at,
            ),
        )
        self._connection.run(
            """INSERT INTO replies(id, conversation_id, scope, prompt, text, adapter, sampling,
            state, finish_reason, origin, content_sha256, at)
            VALUES (?, ?, ?, ?, ?, ?, ?, 'done', 'stop', ?, ?, ?)""",
            (
                reply_id,
                conversation,
                signal.scope,
                dump_messages(signal.prompt),
                text,
                IMPORTED_ADAPTER,
                dump_sampling(Sampling()),
                reply_id,
                content,
                at,
            ),
        )
        self._connection.run("INSERT INTO reply_authors VALUES (?, ?)", (reply_id, person.id))
        return reply_id

    def _put(
        self, signal: ImportedSignal, reply_id: str, other_id: str | None, person: Person
    ) -> bool:
        """Write the row unless it says the same already (a time not given is no difference)."""
        slot = "vote" if signal.kind in ("up", "down") else signal.kind
        before = self._connection.one(
            """SELECT id, kind, text, other_reply_id, at FROM feedback
            WHERE reply_id = ? AND person_id = ? AND slot = ?""",
            (reply_id, person.id, slot),
        )
        now = utc_now()
        at = signal.at or (before["at"] if before else now)
        said = {"kind": signal.kind, "text": signal.text, "other_reply_id": other_id, "at": at}
        if before and said == {name: before[name] for name in said}:
            return False
        if before:
            self._connection.run(
                """UPDATE feedback SET kind = ?, text = ?, other_reply_id = ?, at = ?, recorded_at =
                ?, reviewed_at = NULL WHERE id = ?""",
                (*said.values(), now, before["id"]),
            )
            return True
        self._connection.run(
            """INSERT INTO feedback(kind, text, other_reply_id, at, recorded_at, id, reply_id,
            person_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?)""",
            (*said.values(), now, new_id("f"), reply_id, person.id),
        )
        return True
