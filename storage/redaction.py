"""Taking text back: of one platform message, of one person, of one place.

Invariant: after each of these no row holds the text meant, and every adapter that may have learnt
from it is marked to be retrained, also one whose run is still going on. All run inside the caller's
transaction and leave the file as it is: `secure_delete` zeroes the bytes. Forgetting a person
altogether is storage.forgetting's business.
"""

from __future__ import annotations

from storage.adapters import AdapterStore
from storage.connection import Connection
from storage.forgetting import TABLES, drop_samples, sizes
from storage.rows import dump, under

_OF_MESSAGE = """SELECT reply_id FROM reply_sources WHERE message_id = ?1
    UNION SELECT reply_id FROM reply_messages WHERE message_id = ?1
    UNION SELECT old.id FROM reply_messages m JOIN replies r ON r.id = m.reply_id
    JOIN replies old ON old.origin = r.origin WHERE m.message_id = ?1
    AND NOT EXISTS (SELECT 1 FROM reply_messages n WHERE n.reply_id = old.id)"""
"""Versions the message showed before are meant too: nothing else would lead to their text."""

_PLACES = f"""SELECT id FROM conversations c WHERE :prefix IS NULL OR {under("c.platform_key")}"""  # noqa: S608 # a constant

_OF_PERSON = f"""SELECT r.id AS reply_id FROM replies r JOIN reply_authors a ON a.reply_id = r.id
    WHERE a.person_id = :person AND r.kept AND r.conversation_id IN ({_PLACES})"""  # noqa: S608 # a constant

_OWN_CORRECTIONS = f"""SELECT f.id FROM feedback f JOIN replies r ON r.id = f.reply_id
    WHERE f.person_id = :person AND f.kind = 'correction' AND r.conversation_id IN ({_PLACES})"""  # noqa: S608 # a constant

_THESE = "(SELECT value FROM json_each(?))"

_REDACT = (
    f"DELETE FROM feedback WHERE kind = 'correction' AND reply_id IN {_THESE}",  # noqa: S608 # a constant
    f"DELETE FROM reply_sources WHERE reply_id IN {_THESE}",  # noqa: S608 # a constant
    f"DELETE FROM turns WHERE reply_id IN {_THESE}",  # noqa: S608 # a constant
    f"""UPDATE replies SET kept = 0, prompt = '[]', text = '', content_sha256 = NULL
    WHERE id IN {_THESE}""",  # noqa: S608 # a constant
)


def forget_message(
    connection: Connection, adapters: AdapterStore, message_id: str
) -> dict[str, int]:
    """Delete every reply that was made from a message or is shown by it; return counts by table."""
    replies = [row["reply_id"] for row in connection.all(_OF_MESSAGE, (message_id,))]
    if not replies:  # most messages of a server have nothing to do with us
        return {**dict.fromkeys(TABLES, 0), "adapters_affected": 0}
    before = sizes(connection)
    flagged = adapters.flag_learnt_from(feedback_on(connection, replies))
    connection.run(f"DELETE FROM replies WHERE id IN {_THESE}", (dump(replies),))  # noqa: S608 # a constant
    drop_samples(connection)
    return {**_gone(connection, before), "adapters_affected": len(flagged)}


def redact_person(
    connection: Connection, adapters: AdapterStore, person_id: str, key_prefix: str | None = None
) -> dict[str, int]:
    """Take the text of a person's replies away, everywhere or in one place; votes stay.

    Returns `redacted`, the number of replies that lost their text, beside what was deleted by table
    and `adapters_affected`.
    """
    before = sizes(connection)
    meant = {"person": person_id, "prefix": key_prefix}
    replies = [row["reply_id"] for row in connection.all(_OF_PERSON, meant)]
    corrections = [row["id"] for row in connection.all(_OWN_CORRECTIONS, meant)]
    flagged = adapters.flag_learnt_from(feedback_on(connection, replies) + corrections)
    if key_prefix is None:
        flagged = sorted({*flagged, *adapters.flag_for_retraining(person_id)})
    for statement in _REDACT:
        connection.run(statement, (dump(replies),))
    connection.run(f"DELETE FROM feedback WHERE id IN {_THESE}", (dump(corrections),))  # noqa: S608 # a constant
    connection.run(
        f"DELETE FROM turns WHERE person_id = :person AND conversation_id IN ({_PLACES})",  # noqa: S608 # a constant
        meant,
    )
    gone = _gone(connection, before)
    if replies or any(gone.values()):
        drop_samples(connection)
    return {"redacted": len(replies), **gone, "adapters_affected": len(flagged)}


def remove_conversations(
    connection: Connection, adapters: AdapterStore, scope: str, key_prefix: str
) -> dict[str, int]:
    """Delete the conversations of a scope in one place; return counts by table."""
    here = f"scope = :scope AND id IN ({_PLACES})"
    return _remove(connection, adapters, here, {"scope": scope, "prefix": key_prefix})


def remove_conversation(
    connection: Connection, adapters: AdapterStore, conversation_id: str
) -> dict[str, int]:
    """Delete one conversation; return counts by table."""
    return _remove(connection, adapters, "id = :id", {"id": conversation_id})


def _remove(
    connection: Connection, adapters: AdapterStore, here: str, meant: dict[str, str]
) -> dict[str, int]:
    before = sizes(connection)
    replies = [
        row["id"]
        for row in connection.all(
            f"""SELECT id FROM replies WHERE conversation_id IN
            (SELECT id FROM conversations WHERE {here})""",  # noqa: S608 # a constant
            meant,
        )
    ]
    flagged = adapters.flag_learnt_from(feedback_on(connection, replies))
    connection.run(f"DELETE FROM conversations WHERE {here}", meant)  # noqa: S608 # a constant
    gone = _gone(connection, before)
    if any(gone.values()):
        drop_samples(connection)
    return {**gone, "adapters_affected": len(flagged)}


def feedback_on(connection: Connection, reply_ids: list[str]) -> list[str]:
    """Return the ids of the feedback on these replies, or preferring another to one of them."""
    rows = connection.all(
        """SELECT f.id FROM json_each(?1) j JOIN feedback f ON f.reply_id = j.value
        UNION SELECT f.id FROM json_each(?1) j JOIN feedback f ON f.other_reply_id = j.value
        UNION SELECT f.id FROM json_each(?1) j JOIN replies n ON n.replaces = j.value
        JOIN feedback f ON f.reply_id = n.id""",
        (dump(reply_ids),),
    )
    return [row["id"] for row in rows]


def _gone(connection: Connection, before: dict[str, int]) -> dict[str, int]:
    after = sizes(connection)
    return {table: before[table] - after[table] for table in before}
