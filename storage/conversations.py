"""Conversations and their turns: who said what, in order.

Invariant: positions in a conversation are unique and grow; an assistant turn stands for one reply
and shows its newest version. Knows no model: what of the history the model sees is the chat's
business.
"""

from __future__ import annotations

from typing import Literal

from core.errors import NotFound
from core.records import Conversation, Turn, new_id, utc_now
from storage.adapters import AdapterStore
from storage.connection import Connection
from storage.events import EventStore
from storage.redaction import remove_conversation, remove_conversations
from storage.rows import to_turn, under

_OLD_UNUSED = """SELECT r.id FROM replies r WHERE r.at < :before AND r.state <> 'pending'
    AND NOT EXISTS (SELECT 1 FROM feedback f WHERE f.reply_id = r.id)
    AND NOT EXISTS (SELECT 1 FROM feedback f WHERE f.other_reply_id = r.id)
    AND NOT EXISTS (SELECT 1 FROM matches m WHERE m.candidate_reply = r.id)
    AND NOT EXISTS (SELECT 1 FROM matches m WHERE m.reference_reply = r.id)
    AND NOT EXISTS (SELECT 1 FROM replies n JOIN feedback f ON f.reply_id = n.id
        WHERE n.replaces = r.id)"""

_EXPIRE_QUESTIONS = f"""DELETE FROM turns WHERE at < :before AND role = 'user' AND coalesce(
    (SELECT n.reply_id FROM turns n WHERE n.conversation_id = turns.conversation_id
        AND n.position > turns.position AND n.role = 'assistant' ORDER BY n.position LIMIT 1)
    IN ({_OLD_UNUSED}), 1)"""  # noqa: S608 # a constant
"""A question goes with its answer, or alone if nobody answered it; before the answers go."""

_EXPIRE_REPLIES = f"DELETE FROM replies WHERE id IN ({_OLD_UNUSED})"  # noqa: S608 # a constant


TITLE_CHARS = 80
Conversations = list[Conversation]
Turns = list[Turn]


class ConversationStore:
    """The tables `conversations` and `turns`."""

    def __init__(self, connection: Connection, events: EventStore, adapters: AdapterStore) -> None:
        self._connection = connection
        self._events = events
        self._adapters = adapters

    # -- writing

    def open(
        self, scope: str, *, person_id: str | None = None, platform_key: str | None = None
    ) -> str:
        """Start a conversation, or go on with the one of this scope that `platform_key` names."""
        now = utc_now()
        with self._connection.transaction():
            self._connection.run(
                """INSERT INTO conversations(id, scope, person_id, platform_key, created_at,
                updated_at) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT(scope, platform_key) DO UPDATE
                SET updated_at = excluded.updated_at""",
                (identity := new_id("c"), scope, person_id, platform_key, now, now),
            )
            if platform_key is None:
                return identity
            return str(
                self._connection.value(
                    "SELECT id FROM conversations WHERE scope = ? AND platform_key = ?",
                    (scope, platform_key),
                )
            )

    def add_turn(
        self,
        conversation_id: str,
        *,
        role: Literal["user", "assistant"],
        text: str,
        person_id: str | None = None,
        reply_id: str | None = None,
        at: str | None = None,
    ) -> Turn:
        """Append a turn. Raises NotFound for an unknown conversation."""
        moment = at or utc_now()
        with self._connection.transaction():
            self._require(conversation_id)
            position = self._end(conversation_id)
            turn = Turn(
                new_id("t"), conversation_id, position, role, text, person_id, reply_id, moment
            )
            self._connection.run(
                """INSERT INTO turns(id, conversation_id, position, role, text, person_id, reply_id,
                at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)""",
                (turn.id, conversation_id, position, role, text, person_id, reply_id, moment),
            )
            self._connection.run(
                "UPDATE conversations SET updated_at = ? WHERE id = ?", (utc_now(), conversation_id)
            )
        return turn

    def reset(self, conversation_id: str, *, actor: str = "system") -> None:
        """Let the history begin anew; what was said stays stored, out of the model's sight."""
        with self._connection.transaction():
            self._require(conversation_id)
            self._connection.run(
                "UPDATE conversations SET first_position = ? WHERE id = ?",
                (self._end(conversation_id), conversation_id),
            )
            self._events.add(actor, "conversation.reset", conversation_id)

    def remove(self, scope: str, key_prefix: str, *, actor: str) -> dict[str, int]:
        """Delete a scope's conversations in one place (`discord/<server>`); return counts by table.

        Adapters that learnt from feedback there are marked and counted as `adapters_affected`.
        Idempotent.
        """
        with self._connection.transaction():
            counts = remove_conversations(self._connection, self._adapters, scope, key_prefix)
            if counts["conversations"]:
                self._events.add(actor, "conversation.removed", scope, place=key_prefix, **counts)
        return counts

    def delete(self, conversation_id: str, *, actor: str) -> dict[str, int]:
        """Delete one conversation with everything said of it; counts as `remove`. Idempotent."""
        with self._connection.transaction():
            counts = remove_conversation(self._connection, self._adapters, conversation_id)
            if counts["conversations"]:
                self._events.add(actor, "conversation.removed", conversation_id, **counts)
        return counts

    def expire(self, before: str, *, actor: str = "system") -> int:
        """Delete conversations last used before this time and without feedback; return how many.

        Of those that live on, each older reply goes that no feedback, match or judged newer version
        rests on, with the turns that led to it.
        """
        with self._connection.transaction():
            count = self._connection.run(
                """DELETE FROM conversations WHERE updated_at < ? AND NOT EXISTS (
                    SELECT 1 FROM replies r JOIN feedback f ON r.id IN (f.reply_id,
                    f.other_reply_id) WHERE r.conversation_id = conversations.id)""",
                (before,),
            )
            turns = self._connection.run(_EXPIRE_QUESTIONS, {"before": before})
            replies = self._connection.run(_EXPIRE_REPLIES, {"before": before})
            if count or turns or replies:
                self._events.add(
                    actor, "conversation.expired", before, count=count, replies=replies
                )
        return count

    # -- reading

    def history(self, conversation_id: str, *, limit: int) -> Turns:
        """Return the last `limit` turns since the last reset, oldest first. Raises NotFound."""
        self._require(conversation_id)
        rows = self._connection.all(
            """SELECT t.* FROM turns t JOIN conversations c ON c.id = t.conversation_id
            WHERE c.id = ? AND t.position >= c.first_position ORDER BY t.position DESC LIMIT ?""",
            (conversation_id, limit),
        )
        return [to_turn(row) for row in reversed(rows)]

    def list(self, scope: str, person_id: str, *, limit: int) -> Conversations:
        """Return a person's conversations in which something was said, newest first."""
        rows = self._connection.all(
            """SELECT c.id, c.scope, substr(t.text, 1, ?) AS title, c.updated_at
            FROM conversations c JOIN turns t ON t.conversation_id = c.id AND t.position =
                (SELECT min(position) FROM turns WHERE conversation_id = c.id AND role = 'user')
            WHERE c.scope = ? AND c.person_id = ?
            ORDER BY c.updated_at DESC, c.rowid DESC LIMIT ?""",
            (TITLE_CHARS, scope, person_id, limit),
        )
        return [Conversation(**row) for row in rows]

    def under(self, key_prefix: str) -> frozenset[str]:
        """Return the ids of the conversations in one place, of every scope."""
        rows = self._connection.all(
            f"SELECT id FROM conversations WHERE {under('platform_key')}",  # noqa: S608 # a constant
            {"prefix": key_prefix},
        )
        return frozenset(row["id"] for row in rows)

    def by_place(self, platform: str) -> dict[str, int]:
        """Count the conversations of a platform's widest places (`discord/<server>`)."""
        rows = self._connection.all(
            f"""SELECT :prefix || '/' || substr(rest, 1, instr(rest || '/', '/') - 1) AS key,
            count(*) AS count
            FROM (SELECT substr(platform_key, length(:prefix) + 2) AS rest FROM conversations
            WHERE {under("platform_key")}) WHERE rest <> '' GROUP BY key""",  # noqa: S608 # a constant
            {"prefix": platform},
        )
        return {row["key"]: row["count"] for row in rows}

    def _end(self, conversation_id: str) -> int:
        return int(
            self._connection.value(
                "SELECT coalesce(max(position) + 1, 0) FROM turns WHERE conversation_id = ?",
                (conversation_id,),
            )
        )

    def _require(self, conversation_id: str) -> None:
        if not self._connection.one("SELECT 1 FROM conversations WHERE id = ?", (conversation_id,)):
            raise NotFound(
                f"conversation {conversation_id!r}: no such conversation (it may have expired)"
            )
