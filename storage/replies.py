"""Replies: a row before the first token, pinned to one adapter, finished or failed afterwards.

Invariant: a reply that is `done` has its text and its turn from the same transaction; one that is
not kept never has either, nor a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

from core.errors import NotFound
from core.generation import FinishReason, Message, Sampling
from core.records import Reply, new_id, utc_now
from storage.adapters import AdapterStore
from storage.connection import Connection
from storage.conversations import ConversationStore
from storage.events import EventStore
from storage.redaction import forget_message, redact_person
from storage.rows import content_sha256, dump_messages, dump_sampling, to_reply
from storage.shown import ShownReplies


class ReplyStore(ShownReplies):
    """The tables `replies`, `reply_authors` and `reply_sources`; inherits `reply_messages`."""

    def __init__(
        self,
        connection: Connection,
        events: EventStore,
        conversations: ConversationStore,
        adapters: AdapterStore,
    ) -> None:
        super().__init__(connection)
        self._events = events
        self._conversations = conversations
        self._adapters = adapters

    # -- writing

    def start(
        self,
        *,
        conversation_id: str,
        scope: str,
        prompt: tuple[Message, ...],
        adapter: str,
        sampling: Sampling,
        authors: Sequence[str] = (),
        replaces: str | None = None,
        kept: bool = True,
        sources: Sequence[str] = (),
        at: str | None = None,
    ) -> Reply:
        """Store a pending reply; of one not `kept` neither prompt nor sources are stored.

        `authors` are the people who wrote in `prompt`, `sources` the ids of the platform's messages
        it was made from; a reply that replaces another and names none has that one's.
        """
        reply_id = new_id("r")
        with self._connection.transaction():
            old = self._connection.one("SELECT origin FROM replies WHERE id = ?", (replaces,))
            if replaces and old is None:
                raise NotFound(f"reply {replaces!r}: there is no such reply to write again")
            self._connection.run(
                """INSERT INTO replies(id, conversation_id, scope, prompt, adapter, sampling,
                replaces, origin, kept, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
                (
                    reply_id,
                    conversation_id,
                    scope,
                    dump_messages(prompt if kept else ()),
                    adapter,
                    dump_sampling(sampling),
                    replaces,
                    old["origin"] if old else reply_id,
                    int(kept),
                    at or utc_now(),
                ),
            )
            self._name_authors(reply_id, authors or self.authors(replaces or ""))
            if kept:
                self._name_sources(reply_id, sources or self.sources(replaces or ""))
            return self.get(reply_id)

    def finish(
        self,
        reply_id: str,
        *,
        text: str,
        seed: int,
        finish_reason: FinishReason,
        prompt_tokens: int,
        tokens: int,
        first_token_s: float | None,
        total_s: float,
        in_history: bool = True,
    ) -> Reply:
        """Store the text and its turn; a reply already done stays as it is.

        A reply written again takes the place of its older version in the history. Of a reply that
        is not kept neither is stored; where the platform has the history, `in_history` is false and
        there is no turn.
        """
        with self._connection.transaction():
            reply = self.get(reply_id)
            if reply.state == "done":
                return reply
            stored = text if reply.kept else ""
            content = content_sha256(reply.scope, reply.prompt, text) if reply.kept else None
            self._connection.run(
                """UPDATE replies SET state = 'done', detail = '', text = ?, seed = ?, finish_reason
                = ?, prompt_tokens = ?, tokens = ?, first_token_s = ?, total_s = ?, content_sha256 =
                ? WHERE id = ?""",
                (
                    stored,
                    seed,
                    finish_reason,
                    prompt_tokens,
                    tokens,
                    first_token_s,
                    total_s,
                    content,
                    reply_id,
                ),
            )
            if reply.kept and in_history:
                self._put_in_history(reply, text)
            return self.get(reply_id)

    def fail(self, reply_id: str, reason: str) -> Reply:
        """Mark a pending reply as failed; one that is done stays done."""
        self._connection.run(
            "UPDATE replies SET state = 'failed', detail = ? WHERE id = ? AND state = 'pending'",
            (reason, reply_id),
        )
        return self.get(reply_id)

    def fail_pending(self, reason: str) -> int:
        """Mark every pending reply as failed, as after a restart; return how many."""
        return self._connection.run(
            "UPDATE replies SET state = 'failed', detail = ? WHERE state = 'pending'", (reason,)
        )

    def forget_message(self, message_id: str, actor: str = "system") -> dict[str, int]:
        """Delete what was made from or is shown by a platform message that is there no more.

        Returns counts by table, and `adapters_affected`: those that learnt from it. Idempotent. The
        bytes are zeroed by `secure_delete`; the file is not rewritten, for messages go every day.
        """
        with self._connection.transaction():
            counts = forget_message(self._connection, self._adapters, message_id)
            if counts["replies"]:
                self._events.add(actor, "message.forgotten", message_id, **counts)
        return counts

    def redact(self, person_id: str, *, key_prefix: str | None = None, actor: str) -> int:
        """Take away the text of every reply a person wrote for; return how many lost theirs.

        `key_prefix` bounds it to the conversations of one place (`discord/<server>`). Votes stay;
        corrections go, and adapters that learnt from any of it are marked. Idempotent.
        """
        with self._connection.transaction():
            counts = redact_person(self._connection, self._adapters, person_id, key_prefix)
            if any(counts.values()):
                self._events.add(actor, "person.redacted", person_id, place=key_prefix, **counts)
        return counts["redacted"]

    # -- reading

    def get(self, reply_id: str) -> Reply:
        """Return a reply. Raises NotFound."""
        row = self._connection.one("SELECT * FROM replies WHERE id = ?", (reply_id,))
        if row is None:
            raise NotFound(f"reply {reply_id!r}: there is no such reply (it may have expired)")
        return to_reply(row)

    def latest(self, conversation_id: str) -> Reply | None:
        """Return the newest finished reply of a conversation, or None."""
        row = self._connection.one(
            """SELECT * FROM replies WHERE conversation_id = ? AND state = 'done'
            ORDER BY at DESC, rowid DESC LIMIT 1""",
            (conversation_id,),
        )
        return to_reply(row) if row else None

    def pending(self) -> list[Reply]:
        """Return the replies begun and not ended, oldest first."""
        rows = self._connection.all(
            "SELECT * FROM replies WHERE state = 'pending' ORDER BY at, rowid"
        )
        return [to_reply(row) for row in rows]

    def of_conversation(self, conversation_id: str) -> list[Reply]:
        """Return every version of every reply of a conversation, in any state, oldest first."""
        rows = self._connection.all(
            "SELECT * FROM replies WHERE conversation_id = ? ORDER BY at, rowid", (conversation_id,)
        )
        return [to_reply(row) for row in rows]

    def recent(self, scope: str, limit: int) -> list[Reply]:
        """Return the newest finished replies of a scope, newest first."""
        rows = self._connection.all(
            """SELECT * FROM replies WHERE scope = ? AND state = 'done'
            ORDER BY at DESC, rowid DESC LIMIT ?""",
            (scope, limit),
        )
        return [to_reply(row) for row in rows]

    def states(self, scope: str, *, since: str) -> dict[str, int]:
        """Return how many replies were begun since a time, by state."""
        rows = self._connection.all(
            """SELECT state, count(*) AS many FROM replies WHERE scope = ? AND at >= ?
            GROUP BY state""",
            (scope, since),
        )
        return {row["state"]: row["many"] for row in rows}

    def authors(self, reply_id: str) -> tuple[str, ...]:
        """Return the ids of the people who wrote in a reply's prompt."""
        rows = self._connection.all(
            "SELECT person_id FROM reply_authors WHERE reply_id = ? ORDER BY person_id", (reply_id,)
        )
        return tuple(row["person_id"] for row in rows)

    def sources(self, reply_id: str) -> tuple[str, ...]:
        """Return the ids of the platform's messages that a stored reply's prompt was made from."""
        rows = self._connection.all(
            "SELECT message_id FROM reply_sources WHERE reply_id = ? ORDER BY message_id",
            (reply_id,),
        )
        return tuple(row["message_id"] for row in rows)

    # -- private

    def _name_authors(self, reply_id: str, person_ids: Sequence[str]) -> None:
        for person_id in set(person_ids):
            self._connection.run(
                "INSERT INTO reply_authors(reply_id, person_id) VALUES (?, ?)",
                (reply_id, person_id),
            )

    def _name_sources(self, reply_id: str, message_ids: Sequence[str]) -> None:
        for message_id in set(message_ids):
            self._connection.run(
                "INSERT INTO reply_sources(reply_id, message_id) VALUES (?, ?)",
                (reply_id, message_id),
            )

    def _put_in_history(self, reply: Reply, text: str) -> None:
        """Put the text in the history: in the place of an older version, or at the end."""
        shown = self._connection.one(
            """SELECT t.id, (SELECT rowid FROM replies WHERE id = ?) > r.rowid AS newer FROM turns t
            JOIN replies r ON r.id = t.reply_id
            WHERE r.origin = (SELECT origin FROM replies WHERE id = ?)""",
            (reply.id, reply.id),
        )
        if shown is None:
            self._conversations.add_turn(
                reply.conversation_id, role="assistant", text=text, reply_id=reply.id
            )
        elif shown["newer"]:
            self._connection.run(
                "UPDATE turns SET text = ?, reply_id = ? WHERE id = ?",
                (text, reply.id, shown["id"]),
            )
