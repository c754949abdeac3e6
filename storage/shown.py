"""Which of a platform's messages show which reply now.

Invariant: a message shows one reply, the one it was last said to show; a reply's messages are in
order. Versions of a reply share messages: showing another version moves the rows, and with them the
reactions known of each message. Knows no text.
"""

from __future__ import annotations

from collections.abc import Sequence

from core.errors import NotFound
from core.records import Reply, ShownMessage, utc_now
from storage.connection import Connection
from storage.rows import to_reply

_TAKE_OVER = """INSERT INTO reply_messages(message_id, channel_id, reply_id, position, at)
    VALUES (:message, :channel, :reply, :position, :now) ON CONFLICT(message_id) DO UPDATE SET
    channel_id = excluded.channel_id, position = excluded.position,
    at = CASE reply_id WHEN excluded.reply_id THEN at ELSE excluded.at END,
    reply_id = excluded.reply_id"""

_NAMES = "SELECT message_id, channel_id, reply_id, position FROM reply_messages"


class ShownReplies:
    """The table `reply_messages`; the store of replies inherits it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # -- writing

    def show(self, reply_id: str, channel_id: str, message_ids: Sequence[str]) -> None:
        """Store that these messages show this reply now, in this order. Idempotent.

        Messages no longer named go, of this reply and of one whose message it takes over: a shorter
        version leaves no page behind that still counts as the older one. Raises NotFound.
        """
        ids = list(dict.fromkeys(message_ids))
        with self._connection.transaction():
            if not self._connection.one("SELECT 1 FROM replies WHERE id = ?", (reply_id,)):
                raise NotFound(f"reply {reply_id!r}: there is no such reply (it may have expired)")
            before = self._shown_by(ids) | {reply_id}
            for position, message_id in enumerate(ids):
                self._connection.run(
                    _TAKE_OVER,
                    {
                        "message": message_id,
                        "channel": channel_id,
                        "reply": reply_id,
                        "position": position,
                        "now": utc_now(),
                    },
                )
            for shown in before:
                self._leave_only(shown, ids)

    # -- reading

    def messages(self, reply_id: str) -> list[ShownMessage]:
        """Return the messages that show a reply now, in order."""
        rows = self._connection.all(f"{_NAMES} WHERE reply_id = ? ORDER BY position", (reply_id,))
        return [ShownMessage(**row) for row in rows]

    def of_message(self, message_id: str) -> Reply | None:
        """Return the reply that a message shows now, or None."""
        row = self._connection.one(
            """SELECT r.* FROM replies r JOIN reply_messages m ON m.reply_id = r.id
            WHERE m.message_id = ?""",
            (message_id,),
        )
        return to_reply(row) if row else None

    def versions(self, reply_id: str) -> list[Reply]:
        """Return every finished version of a reply, itself included, oldest first."""
        rows = self._connection.all(
            """SELECT * FROM replies WHERE origin = (SELECT origin FROM replies WHERE id = ?)
            AND state = 'done' ORDER BY at, rowid""",
            (reply_id,),
        )
        return [to_reply(row) for row in rows]

    def shown_since(self, at: str, limit: int = 500) -> list[ShownMessage]:
        """Return the messages that show what they show since this time or later, newest first."""
        rows = self._connection.all(
            """SELECT m.message_id, m.channel_id, m.reply_id, m.position,
            coalesce(c.platform_key, '') AS place FROM reply_messages m
            JOIN replies r ON r.id = m.reply_id JOIN conversations c ON c.id = r.conversation_id
            WHERE m.at >= ? ORDER BY m.at DESC, m.position DESC LIMIT ?""",
            (at, limit),
        )
        return [ShownMessage(**row) for row in rows]

    # -- private

    def _shown_by(self, message_ids: list[str]) -> set[str]:
        found = (
            self._connection.value(
                "SELECT reply_id FROM reply_messages WHERE message_id = ?", (message_id,)
            )
            for message_id in message_ids
        )
        return {str(reply_id) for reply_id in found if reply_id}

    def _leave_only(self, reply_id: str, message_ids: list[str]) -> None:
        for shown in self.messages(reply_id):
            if shown.message_id not in message_ids:
                self._connection.run(
                    "DELETE FROM reply_messages WHERE message_id = ?", (shown.message_id,)
                )
