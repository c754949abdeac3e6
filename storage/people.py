"""People: who they are on their platform, and whether their words may train.

Invariant: consent changes only by `set_consent`, or by `ensure` while it was never asked.
"""

from __future__ import annotations

from typing import Any

from core.errors import NotFound
from core.records import Consent, Person, new_id, utc_now
from storage.adapters import AdapterStore
from storage.connection import Connection
from storage.events import EventStore
from storage.forgetting import forget_person, scrub
from storage.redaction import redact_person
from storage.rows import to_person, under

People = list[Person]


class PeopleStore:
    """The table `people`."""

    def __init__(self, connection: Connection, events: EventStore, adapters: AdapterStore) -> None:
        self._connection = connection
        self._events = events
        self._adapters = adapters

    # -- writing

    def ensure(
        self,
        platform: str,
        platform_id: str,
        *,
        display_name: str = "",
        consent: Consent | None = None,
        at: str | None = None,
    ) -> Person:
        """Return the person, made if new, with name and last-seen time brought up to date.

        `consent` is applied only while it is still unknown.
        """
        now = at or utc_now()
        with self._connection.transaction():
            self._connection.run(
                """INSERT INTO people(id, platform, platform_id, display_name, last_seen,
                created_at) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT(platform, platform_id) DO UPDATE
                SET last_seen = max(coalesce(last_seen, ''), excluded.last_seen),
                display_name = coalesce(nullif(excluded.display_name, ''), display_name)""",
                (new_id("p"), platform, platform_id, display_name, now, now),
            )
            row = self._connection.one(
                "SELECT * FROM people WHERE platform = ? AND platform_id = ?",
                (platform, platform_id),
            )
            if row is None:
                raise NotFound(f"person {platform}:{platform_id}: the row just written is gone")
            if consent and consent != "unknown" and row["consent"] == "unknown":
                return self.set_consent(row["id"], consent, actor=row["id"])
            return to_person(row)

    def set_consent(
        self, person_id: str, consent: Consent, *, actor: str, from_message: int = 0
    ) -> Person:
        """Store what a person decided. Idempotent. Raises NotFound.

        `from_message` is the platform's id from which on the decision holds, where its ids grow
        with time: what was said before stays outside.
        """
        with self._connection.transaction():
            before = self.get(person_id)
            if before.consent != consent:
                self._connection.run(
                    "UPDATE people SET consent = ?, consent_at = ?, consent_from = ? WHERE id = ?",
                    (consent, utc_now(), from_message, person_id),
                )
                self._events.add(actor, f"consent.{consent}", person_id, before=before.consent)
            return self.get(person_id)

    def forget(self, person_id: str, *, actor: str) -> dict[str, int]:
        """Remove everything a person wrote and everything said to them; return what was removed.

        Adapters that learnt from them are marked to be retrained and counted as
        `adapters_affected`. A row without personal data stays, so that the audit trail and lineage
        keep their meaning. When this returns the bytes are gone from the database file and its log;
        backups are not touched. Raises NotFound.
        """
        with self._connection.transaction():
            self.get(person_id)
            counts = forget_person(self._connection, person_id)
            counts["adapters_affected"] = len(self._adapters.flag_for_retraining(person_id))
            self._events.add(actor, "person.forgotten", person_id, **counts)
        scrub(self._connection)
        return counts

    def opt_out(self, person_id: str, *, actor: str) -> dict[str, int]:
        """Take consent back: store the refusal and remove the text of every reply they wrote for.

        Their votes stay. Adapters that learnt from them are marked to be retrained and counted as
        `adapters_affected`, the replies that lost their text as `redacted`. The bytes are gone from
        the file when this returns. Idempotent. Raises NotFound.
        """
        with self._connection.transaction():
            self.set_consent(person_id, "refused", actor=actor)
            counts = redact_person(self._connection, self._adapters, person_id)
            self._events.add(actor, "person.opted_out", person_id, **counts)
        scrub(self._connection)
        return counts

    # -- reading

    def get(self, person_id: str) -> Person:
        """Return a person. Raises NotFound."""
        row = self._connection.one("SELECT * FROM people WHERE id = ?", (person_id,))
        if row is None:
            raise NotFound(f"person {person_id!r}: there is nobody with this id")
        return to_person(row)

    def list(self) -> People:
        """Return everybody who was not forgotten, first come first."""
        rows = self._connection.all(
            "SELECT * FROM people WHERE forgotten_at IS NULL ORDER BY created_at, rowid"
        )
        return [to_person(row) for row in rows]

    def find(self, text: str) -> People:
        """Return who is meant by an id, `platform:platform_id`, a platform id or a display name."""
        rows = self._connection.all(
            """SELECT * FROM people WHERE forgotten_at IS NULL
            AND ? IN (id, platform || ':' || platform_id, platform_id, display_name)
            ORDER BY created_at, rowid""",
            (text,),
        )
        return [to_person(row) for row in rows]

    def with_kept_text(self, key_prefix: str) -> People:
        """Return who wrote in the prompt of a stored reply in one place (`discord/<server>`)."""
        rows = self._connection.all(_WITH_KEPT_TEXT, {"prefix": key_prefix})
        return [to_person(row) for row in rows]

    def export(self, person_id: str) -> dict[str, Any]:
        """Return everything held about a person, ready for JSON. Raises NotFound."""
        self.get(person_id)
        return {
            "person": self._connection.one("SELECT * FROM people WHERE id = ?", (person_id,)),
            **{
                name: self._connection.all(statement, (person_id,))
                for name, statement in _HELD.items()
            },
        }


_WITH_KEPT_TEXT = f"""SELECT p.* FROM people p WHERE p.forgotten_at IS NULL AND EXISTS (
    SELECT 1 FROM reply_authors a JOIN replies r ON r.id = a.reply_id
    JOIN conversations c ON c.id = r.conversation_id
    WHERE a.person_id = p.id AND r.kept AND {under("c.platform_key")})
    ORDER BY p.created_at, p.rowid"""  # noqa: S608 # a constant

_HELD = {
    "conversations": "SELECT * FROM conversations WHERE person_id = ? ORDER BY created_at",
    "turns": "SELECT * FROM turns WHERE person_id = ? ORDER BY at, rowid",
    "replies": """SELECT r.* FROM replies r JOIN reply_authors a ON a.reply_id = r.id
        WHERE a.person_id = ? ORDER BY r.at, r.rowid""",
    "feedback": "SELECT * FROM feedback WHERE person_id = ? ORDER BY at, rowid",
    "reactions": "SELECT * FROM reactions WHERE person_id = ? ORDER BY message_id, kind",
    "match_votes": "SELECT * FROM match_votes WHERE person_id = ? ORDER BY at",
    "runs": """SELECT r.id, r.scope, r.state, r.adapter, r.created_at FROM runs r
        JOIN run_people p ON p.run_id = r.id WHERE p.person_id = ? ORDER BY r.created_at""",
    "adapters": """SELECT a.name, a.state, a.needs_retraining FROM adapters a
        JOIN run_people p ON p.run_id = a.run_id WHERE p.person_id = ? ORDER BY a.created_at""",
    "events": "SELECT * FROM events WHERE ?1 IN (actor, subject) ORDER BY id",
}
