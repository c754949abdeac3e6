"""Replies: a row before the first token, pinned to one adapter, finished or failed afterwards.

Invariant: a reply that is `done` has its text and its turn from the same transaction.
"""

from __future__ import annotations

from collections.abc import Sequence

from core.errors import NotFound
from core.generation import FinishReason, Message, Sampling
from core.records import Reply, new_id, utc_now
from storage.connection import Connection
from storage.conversations import ConversationStore
from storage.rows import content_sha256, dump, dump_messages, dump_sampling, to_reply


class ReplyStore:
    """The tables `replies` and `reply_authors`."""

    def __init__(self, connection: Connection, conversations: ConversationStore) -> None:
        self._connection = connection
        self._conversations = conversations

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
        at: str | None = None,
    ) -> Reply:
        """Store a pending reply.

        `authors` are the people who wrote in `prompt`; a reply that replaces another and names none
        has that one's authors.
        """
        reply_id = new_id("r")
        with self._connection.transaction():
            old = self._connection.one("SELECT origin FROM replies WHERE id = ?", (replaces,))
            if replaces and old is None:
                raise NotFound(f"reply {replaces!r}: there is no such reply to write again")
            self._connection.run(
                """INSERT INTO replies(id, conversation_id, scope, prompt, adapter, sampling,
                replaces, origin, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
                (
                    reply_id,
                    conversation_id,
                    scope,
                    dump_messages(prompt),
                    adapter,
                    dump_sampling(sampling),
                    replaces,
                    old["origin"] if old else reply_id,
                    at or utc_now(),
                ),
            )
            for person_id in set(authors) or self._authors(replaces):
                self._connection.run(
                    "INSERT INTO reply_authors(reply_id, person_id) VALUES (?, ?)",
                    (reply_id, person_id),
                )
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
    ) -> Reply:
        """Store the text and its turn; a reply already done stays as it is.

        A reply written again takes the place of its older version in the history.
        """
        with self._connection.transaction():
            reply = self.get(reply_id)
            if reply.state == "done":
                return reply
            self._connection.run(
                """UPDATE replies SET state = 'done', detail = '', text = ?, seed = ?, finish_reason
                = ?, prompt_tokens = ?, tokens = ?, first_token_s = ?, total_s = ?, content_sha256 =
                ? WHERE id = ?""",
                (
                    text,
                    seed,
                    finish_reason,
                    prompt_tokens,
                    tokens,
                    first_token_s,
                    total_s,
                    content_sha256(reply.scope, reply.prompt, text),
                    reply_id,
                ),
            )
            self._show(reply, text)
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

    def set_message_ids(self, reply_id: str, platform_message_ids: Sequence[str]) -> Reply:
        """Store the ids of the platform's messages that show this reply."""
        self._connection.run(
            "UPDATE replies SET platform_message_ids = ? WHERE id = ?",
            (dump(list(platform_message_ids)), reply_id),
        )
        return self.get(reply_id)

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

    def recent(self, scope: str, limit: int) -> list[Reply]:
        """Return the newest finished replies of a scope, newest first."""
        rows = self._connection.all(
            """SELECT * FROM replies WHERE scope = ? AND state = 'done'
            ORDER BY at DESC, rowid DESC LIMIT ?""",
            (scope, limit),
        )
        return [to_reply(row) for row in rows]

    def _authors(self, reply_id: str | None) -> set[str]:
        rows = self._connection.all(
            "SELECT person_id FROM reply_authors WHERE reply_id = ?", (reply_id,)
        )
        return {row["person_id"] for row in rows}

    def _show(self, reply: Reply, text: str) -> None:
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
