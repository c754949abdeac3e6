"""Feedback as training, schedule and people read it: joins and tallies, never a write.

A row trains only if its reply is kept, the voter and every human author of its context gave consent
(all three: `all_consented`) and no admin dropped it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from core.garbage import uncollected
from core.records import FeedbackRow
from storage.connection import Connection
from storage.rows import to_feedback_row

_COLUMNS = """f.*, r.scope, r.prompt, r.text AS reply_text, r.adapter AS reply_adapter,
    r.finish_reason, o.text AS other_text, o.id AS other_id,
    o.finish_reason AS other_finish_reason,
    (SELECT group_concat(person_id) FROM
        (SELECT person_id FROM reply_authors WHERE reply_id = r.id ORDER BY person_id)) AS authors,
    (r.kept AND f.person_id NOT IN (SELECT id FROM people WHERE consent <> 'given')
        AND NOT EXISTS (SELECT 1 FROM replies x WHERE x.id = f.other_reply_id AND NOT x.kept)
        AND NOT EXISTS (SELECT 1 FROM reply_authors a WHERE a.reply_id = r.id
        AND +a.person_id IN (SELECT id FROM people WHERE consent <> 'given'))) AS all_consented"""
"""`+` keeps SQLite from going through all that such people wrote, row for row."""

_JOINED = """feedback f
    JOIN replies r ON r.id = f.reply_id
    LEFT JOIN replies o ON o.id = coalesce(f.other_reply_id, r.replaces) AND o.state = 'done'
        AND o.kept"""

ROWS = f"""SELECT {_COLUMNS}, p.platform, p.display_name AS person_name
    FROM {_JOINED} JOIN people p ON p.id = f.person_id"""  # noqa: S608 # constants

_WANTED = f"""SELECT {_COLUMNS} FROM {_JOINED}
    WHERE (r.scope = :scope OR :scope IS NULL) AND (f.at > :since OR :since IS NULL)
    AND (NOT :consented OR (all_consented AND NOT f.dropped))
    ORDER BY f.rowid"""  # noqa: S608 # constants
"""In the order of the table: sorting whole texts by time spills to disk, sorting rows does not."""

_PEOPLE = "SELECT id, platform, display_name AS person_name FROM people"

_WAITING = """SELECT count(*) AS signals, count(DISTINCT f.person_id) AS people
    FROM feedback f JOIN replies r ON r.id = f.reply_id
    WHERE r.scope = ? AND r.kept AND NOT f.dropped AND f.recorded_at >
        coalesce((SELECT max(created_at) FROM runs WHERE scope = ?), '')"""

_TALLY = """SELECT count(*) AS signals, count(DISTINCT f.person_id) AS people,
    coalesce(sum(f.dropped), 0) AS dropped,
    coalesce(sum(f.kind = 'up'), 0) AS up,
    coalesce(sum(f.kind = 'down'), 0) AS down,
    coalesce(sum(f.kind = 'correction'), 0) AS correction,
    coalesce(sum(f.kind = 'preference'), 0) AS preference,
    coalesce(sum(f.kind = 'regenerate'), 0) AS regenerate
    FROM feedback f JOIN replies r ON r.id = f.reply_id WHERE r.scope = ? OR ? IS NULL"""

_LIKES = """SELECT r.adapter, sum(f.kind = 'up') AS up, sum(f.kind = 'down') AS down
    FROM feedback f JOIN replies r ON r.id = f.reply_id
    WHERE f.kind IN ('up', 'down') AND NOT f.dropped AND (r.scope = ? OR ? IS NULL)
    GROUP BY r.adapter ORDER BY r.adapter"""


_SEARCH = f"""{ROWS} WHERE r.scope = :scope
    AND (:kind = '' OR f.kind = :kind) AND (:adapter = '' OR r.adapter = :adapter)
    AND (:person = '' OR f.person_id = :person) AND (:dropped OR NOT f.dropped)
    AND (:run = '' OR f.id IN (SELECT feedback_id FROM run_examples WHERE run_id = :run))
    AND (:like = '' OR r.text LIKE :like ESCAPE '!' OR f.text LIKE :like ESCAPE '!'
        OR f.reasons LIKE :like ESCAPE '!' OR p.display_name LIKE :like ESCAPE '!'
        OR json_extract(r.prompt, '$[#-1][1]') LIKE :like ESCAPE '!')
    ORDER BY f.at DESC, f.rowid DESC LIMIT :limit OFFSET :offset"""  # noqa: S608 # constants

_BY_DAY = """SELECT substr(f.at, 1, 10) AS day, sum(f.kind = 'up') AS up,
    sum(f.kind = 'down') AS down FROM feedback f JOIN replies r ON r.id = f.reply_id
    WHERE r.scope = ? AND f.kind IN ('up', 'down') AND f.at >= ? GROUP BY day ORDER BY day"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which feedback to show: an empty field takes all; `text` is looked for in the question, the
    reply, the correction, the reasons and the person's name. `run` is what it learnt from or was
    tested on.
    """

    text: str = ""
    kind: str = ""
    adapter: str = ""
    person: str = ""
    run: str = ""
    dropped: bool = True
    limit: int = 50
    offset: int = 0


class SignalReader:
    """Read-only views over feedback."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def rows(
        self, scope: str | None, *, since: str | None = None, consented_only: bool = False
    ) -> list[FeedbackRow]:
        """Return signals with all that training needs of them, oldest first; scope None means all.

        `other_text` is the reply that lost: the one not chosen, or the one this reply was asked to
        replace. `consented_only` leaves out what may not train: rows without everybody's consent
        and dropped ones.
        """
        about = {"scope": scope, "since": since, "consented": consented_only}
        with uncollected(), self._connection.snapshot():
            people = {row.pop("id"): row for row in self._connection.each(_PEOPLE)}
            found = (
                to_feedback_row(row | people[row["person_id"]])
                for row in self._connection.each(_WANTED, about)
            )
            return sorted(found, key=lambda row: row.feedback.at)

    def search(self, scope: str, wanted: Wanted) -> list[FeedbackRow]:
        """Return the rows that are wanted, newest first."""
        text = "".join(f"!{one}" if one in "%_!" else one for one in wanted.text)
        about = {**asdict(wanted), "scope": scope, "like": f"%{text}%" if text else ""}
        return [to_feedback_row(row) for row in self._connection.all(_SEARCH, about)]

    def by_day(self, scope: str, *, since: str) -> list[tuple[str, int, int]]:
        """Return (day, thumbs up, thumbs down) of each day with a thumb, oldest first."""
        rows = self._connection.all(_BY_DAY, (scope, since))
        return [(row["day"], row["up"], row["down"]) for row in rows]

    def waiting(self, scope: str) -> tuple[int, int]:
        """Return (signals, people) recorded since the scope's last run was created."""
        row = self._connection.one(_WAITING, (scope, scope)) or {}
        return row["signals"], row["people"]

    def like_rates(self, scope: str | None) -> dict[str, tuple[int, int]]:
        """Return (thumbs up, thumbs down) by adapter; scope None means all."""
        rows = self._connection.all(_LIKES, (scope, scope))
        return {row["adapter"]: (row["up"], row["down"]) for row in rows}

    def stats(self, scope: str | None = None) -> dict[str, Any]:
        """Return counts by kind, people, like rates by adapter and what waits for the next run."""
        tally = self._connection.one(_TALLY, (scope, scope)) or {}
        names = [scope] if scope else self._scopes()
        waiting = {name: self.waiting(name) for name in names}
        return {
            **tally,
            "like_rates": {
                adapter: {"up": up, "down": down, "rate": up / (up + down)}
                for adapter, (up, down) in self.like_rates(scope).items()
            },
            "waiting": sum(signals for signals, _ in waiting.values()),
            "waiting_people": sum(people for _, people in waiting.values()),
        }

    def _scopes(self) -> list[str]:
        return [
            row["name"] for row in self._connection.all("SELECT name FROM scopes ORDER BY name")
        ]
