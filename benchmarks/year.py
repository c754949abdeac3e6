"""A synthetic year of a busy bot, as the Discord face writes it, for benchmarks of the database.

Servers of unlike size (one that keeps nothing), chains of about four replies, one to three authors
a prompt, the messages each reply was made from and is shown by, and at most one vote on a reply.
Written by bulk inserts past the stores: their checks are not what is measured here.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.common import QUESTIONS
from core.generation import Message, Sampling
from core.records import new_id, utc_text
from storage.connection import Connection, connect
from storage.database import Database
from storage.rows import content_sha256, dump_messages, dump_sampling

SERVERS = {
    "discord-100": 0.40,
    "discord-101": 0.25,
    "discord-102": 0.15,
    "discord-103": 0.10,
    "discord-104": 0.07,
    "discord-105": 0.03,
}
"""The scopes and their shares of the replies."""
BIG, NOT_KEPT = "discord-100", "discord-103"
KEPT_SHARE = 0.85
CHAIN = 4
KINDS, KIND_WEIGHTS = ("up", "down", "correction", "regenerate"), (60, 32, 5, 3)
CHUNK = 20_000
TEXT_CHARS = 1 << 20
YEAR_S = 365 * 24 * 3600
BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
FIRST_MESSAGE = 1_300_000_000_000_000_000


@dataclass(frozen=True, slots=True)
class Size:
    """How much a year holds."""

    replies: int
    votes: int
    people: int

    def tenth(self) -> Size:
        """Return the same year in a tenth of the town."""
        return Size(self.replies // 10, self.votes // 10, self.people // 10)


def fill(path: Path, size: Size, *, seed: int = 0) -> None:
    """Write a synthetic year to a new database."""
    Database(path).close()
    connection, chance = connect(path), random.Random(seed)
    connection.run("PRAGMA synchronous = OFF")
    connection.run("PRAGMA cache_size = -400000")
    people = [_id("p", _moment(0)) for _ in range(size.people)]
    with connection.transaction():
        _fill_people(connection, people, chance)
    voted = frozenset(chance.sample(range(size.replies), size.votes))
    rows = _year(size, people, voted, chance)
    for done in range(0, size.replies, CHUNK):
        with connection.transaction():
            _insert(connection, rows, min(CHUNK, size.replies - done))
        _progress(f"filling: {min(done + CHUNK, size.replies):,} of {size.replies:,} replies")
    connection.value("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    _progress("")


def _fill_people(connection: Connection, people: list[str], chance: random.Random) -> None:
    for scope in SERVERS:
        connection.run("INSERT INTO scopes(name, created_at) VALUES (?, ?)", (scope, _moment(0)))
    connection.raw.executemany(
        """INSERT INTO people(id, platform, platform_id, display_name, consent, created_at)
        VALUES (?, 'discord', ?, ?, ?, ?)""",
        [
            (
                person,
                str(FIRST_MESSAGE + index),
                f"person {index}",
                chance.choices(("given", "unknown", "refused"), (90, 8, 2))[0],
                _moment(0),
            )
            for index, person in enumerate(people)
        ],
    )


Rows = dict[str, list[tuple[Any, ...]]]

_TABLES = {
    "conversations": "id, scope, platform_key, created_at, updated_at",
    "replies": """id, conversation_id, scope, prompt, text, adapter, sampling, state, seed,
        finish_reason, prompt_tokens, tokens, first_token_s, total_s, origin, content_sha256, at,
        kept""",
    "reply_authors": "reply_id, person_id",
    "reply_sources": "reply_id, message_id",
    "reply_messages": "message_id, channel_id, reply_id, position, at",
    "feedback": "id, reply_id, person_id, kind, text, at, recorded_at",
    "events": "at, actor, action, subject, detail",
}


def _insert(connection: Connection, year: Iterator[Rows], replies: int) -> None:
    gathered: Rows = {table: [] for table in _TABLES}
    for _ in range(replies):
        for table, rows in next(year).items():
            gathered[table] += rows
    for table, columns in _TABLES.items():
        marks = ", ".join("?" * (columns.count(",") + 1))
        connection.raw.executemany(
            f"INSERT INTO {table}({columns}) VALUES ({marks})",  # noqa: S608 # constants
            gathered[table],
        )


def _year(
    size: Size, people: list[str], voted: frozenset[int], chance: random.Random
) -> Iterator[Rows]:
    """Yield the rows of one reply after another, in the order of time."""
    words = sorted({word for question in QUESTIONS for word in re.findall(r"\w+", question)})
    text = " ".join(chance.choices(words, k=TEXT_CHARS // 4))[:TEXT_CHARS]
    names, shares = list(SERVERS), list(SERVERS.values())
    open_chains: dict[str, tuple[str, int]] = {}
    for index in range(size.replies):
        scope, at = chance.choices(names, shares)[0], _moment(index * YEAR_S / size.replies)
        rows: Rows = {}
        conversation, left = open_chains.get(scope, ("", 0))
        if not left:
            conversation, left = _id("c", at), CHAIN
            key = f"{scope.replace('-', '/')}/{chance.randrange(20)}/{FIRST_MESSAGE + index * 8}"
            rows["conversations"] = [(conversation, scope, key, at, at)]
        open_chains[scope] = conversation, left - 1
        kept = scope != NOT_KEPT and chance.random() < KEPT_SHARE
        authors = chance.sample(people, chance.choices((1, 2, 3), (80, 15, 5))[0])
        prompt = tuple(Message("user", _piece(text, 60, 200, chance)) for _ in authors)
        said = _piece(text, 200, 900, chance) if kept else ""
        rows |= _reply(index, conversation, scope, at, prompt if kept else (), said, chance)
        reply_id = rows["replies"][0][0]
        rows["reply_authors"] = [(reply_id, author) for author in authors]
        if index in voted:
            rows |= _voted(reply_id, chance.choice(people), at, text if kept else "", chance)
        yield rows


def _reply(
    index: int,
    conversation: str,
    scope: str,
    at: str,
    prompt: tuple[Message, ...],
    said: str,
    chance: random.Random,
) -> Rows:
    """Return a finished reply, kept if it has a prompt, made from that many messages."""
    reply_id, message = _id("r", at), FIRST_MESSAGE + index * 8
    adapter = f"{scope}@v{1 + int(at[5:7]) // 3}"
    content = content_sha256(scope, prompt, said) if prompt else None
    lengths = (len(prompt) * 40, len(said) // 4, 0.2, 3.0)
    row = (reply_id, conversation, scope, dump_messages(prompt), said, adapter, _SAMPLING)
    state = ("done", chance.getrandbits(31), "stop", *lengths)
    return {
        "replies": [(*row, *state, reply_id, content, at, int(bool(prompt)))],
        "reply_sources": [(reply_id, str(message + place)) for place in range(len(prompt))],
        "reply_messages": [(str(message + 4), "7", reply_id, 0, at)],
    }


def _voted(reply_id: str, person: str, at: str, text: str, chance: random.Random) -> Rows:
    """Return one row of feedback and its event; only what is kept can be corrected (`text`)."""
    kind = chance.choices(KINDS, KIND_WEIGHTS)[0] if text else chance.choice(("up", "down"))
    correction = _piece(text, 200, 900, chance) if kind == "correction" else None
    identity = _id("f", at)
    return {
        "feedback": [(identity, reply_id, person, kind, correction, at, at)],
        "events": [(at, person, f"feedback.{kind}", reply_id, f'{{"feedback":"{identity}"}}')],
    }


_SAMPLING = dump_sampling(Sampling())


def _piece(text: str, shortest: int, longest: int, chance: random.Random) -> str:
    begin = chance.randrange(len(text) - longest)
    return text[begin : begin + chance.randint(shortest, longest)]


def _moment(seconds: float) -> str:
    return utc_text(BEGIN + timedelta(seconds=seconds))


def _id(prefix: str, at: str) -> str:
    return new_id(prefix, datetime.fromisoformat(at).timestamp())


def _progress(line: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()
    elif line:
        print(line, file=sys.stderr)
