"""Forgetting a person: delete what they wrote and what was said to them, then the bytes themselves.

Invariant: after `scrub`, no page of the file or of its log holds deleted text. `secure_delete`
zeroes what is deleted and the log is cut; in trials that alone left nothing. VACUUM rewrites the
file besides, so that nothing rests on how pages were split before, or on a time when
`secure_delete` was off.
"""

from __future__ import annotations

import logging

from core.records import utc_now
from storage.connection import Connection

log = logging.getLogger(__name__)

_OTHERS_WRITE_HERE = """EXISTS (SELECT 1 FROM turns t WHERE t.conversation_id = conversations.id
        AND t.person_id <> :person)
    OR EXISTS (SELECT 1 FROM replies r JOIN reply_authors a ON a.reply_id = r.id
        WHERE r.conversation_id = conversations.id AND a.person_id <> :person)"""

_WRITES_HERE = """conversations.person_id = :person
    OR EXISTS (SELECT 1 FROM turns t WHERE t.conversation_id = conversations.id
        AND t.person_id = :person)
    OR EXISTS (SELECT 1 FROM replies r JOIN reply_authors a ON a.reply_id = r.id
        WHERE r.conversation_id = conversations.id AND a.person_id = :person)"""

_STEPS = {
    "reactions": "DELETE FROM reactions WHERE person_id = :person",
    "match_votes": "DELETE FROM match_votes WHERE person_id = :person",
    "feedback": "DELETE FROM feedback WHERE person_id = :person",
    "replies": """DELETE FROM replies
        WHERE id IN (SELECT reply_id FROM reply_authors WHERE person_id = :person)""",
    "turns": "DELETE FROM turns WHERE person_id = :person",
}
"""In this order, after the conversations that were theirs alone are found and before those go."""


def forget_person(connection: Connection, person_id: str) -> dict[str, int]:
    """Delete a person's rows inside the caller's transaction; return counts by table.

    A conversation with nobody else goes whole. Of a shared one go their turns and every reply whose
    prompt held their words, with the feedback on it. Counts include what goes with a deleted row.
    """
    before = sizes(connection)
    person = {"person": person_id}
    alone = [
        row["id"]
        for row in connection.all(
            f"SELECT id FROM conversations WHERE ({_WRITES_HERE}) AND NOT ({_OTHERS_WRITE_HERE})",  # noqa: S608 # constants
            person,
        )
    ]
    for statement in _STEPS.values():
        connection.run(statement, person)
    for conversation_id in alone:
        connection.run("DELETE FROM conversations WHERE id = ?", (conversation_id,))
    connection.run("UPDATE conversations SET person_id = NULL WHERE person_id = :person", person)
    drop_samples(connection)
    connection.run(
        """UPDATE people SET platform = 'forgotten', platform_id = id, display_name = '',
        consent = 'refused', consent_at = NULL, consent_from = 0, last_seen = NULL,
        forgotten_at = ? WHERE id = ?""",
        (utc_now(), person_id),
    )
    after = sizes(connection)
    return {table: before[table] - after[table] for table in before}


def drop_samples(connection: Connection) -> None:
    """Take the held-out prompts out of every run's report: whose words each is, is not kept."""
    connection.run("UPDATE runs SET report = json_remove(report, '$.report.samples')")


def scrub(connection: Connection) -> None:
    """Rewrite the file without what was deleted and cut the log. Outside of a transaction only."""
    connection.run("VACUUM")
    row = connection.one("PRAGMA wal_checkpoint(TRUNCATE)") or {}
    if row.get("busy"):
        log.warning(
            "%s: another process is reading, so deleted text stays in the log until it is done",
            connection.path,
        )


TABLES = ("conversations", "turns", "replies", "feedback")
"""The tables with people's words."""


def sizes(connection: Connection) -> dict[str, int]:
    """Return how many rows the tables with people's words have, by table."""
    return (
        connection.one(
            """SELECT (SELECT count(*) FROM conversations) AS conversations,
            (SELECT count(*) FROM turns) AS turns, (SELECT count(*) FROM replies) AS replies,
            (SELECT count(*) FROM feedback) AS feedback"""
        )
        or {}
    )
