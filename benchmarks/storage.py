"""What a year of a busy bot costs its database: votes, training sets, start-up, deletion, growth.

A synthetic year in a temporary directory, as the Discord face writes it: servers of unlike size
(one that keeps nothing), chains of about four replies, one to three authors a prompt, the messages
each reply was made from and is shown by, and a vote on a fifth of the replies. It is filled by bulk
inserts; everything measured goes through the stores. Readers run in processes of their own, as a
second command beside the bot does; memory is read from /proc, so this needs Linux.

`growth_exponent` is log10 of what an operation costs here over what it costs at a tenth of the
size, the largest of three medians: 0 is a cost that does not grow, 1 one that grows with the data.
"""

from __future__ import annotations

import gc
import json
import math
import multiprocessing
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.common import QUESTIONS, arguments, median, quantile, scratch
from core.generation import Message, Sampling
from core.records import new_id, utc_text
from storage.connection import Connection, connect
from storage.database import Database
from storage.rows import content_sha256, dump_messages, dump_sampling
from trainer.dataset import select_examples

SERVERS = (("discord-100", 0.40), ("discord-101", 0.25), ("discord-102", 0.15))
SERVERS += (("discord-103", 0.10), ("discord-104", 0.07), ("discord-105", 0.03))
"""The scopes and their shares of the replies."""
BIG, NOT_KEPT = "discord-100", "discord-103"
KEPT_SHARE = 0.85
CHAIN = 4
KINDS, KIND_WEIGHTS = ("up", "down", "correction", "regenerate"), (60, 32, 5, 3)
PERSON_SHARE = 0.25
VOTES_PER_S = 200
CHUNK = 20_000
TEXT_CHARS = 1 << 20
YEAR_S = 365 * 24 * 3600
BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
FIRST_MESSAGE = 1_300_000_000_000_000_000

BOUNDS = {"vote_p99_ms": 5.0, "dataset_s": 10.0, "startup_s": 1.0, "growth_exponent": 1.05}
BOUNDS["dataset_peak_mib"] = 300.0

WHAT = {
    "replies": "replies stored",
    "votes": "feedback rows stored",
    "people": "people stored",
    "fill_s": "filling the year, s",
    "file_mb": "size of the file, MB",
    "startup_s": "opening the database, s",
    "vote_p50_ms": "a vote at 200 a second beside readers, median ms",
    "vote_p99_ms": "the same, 99th percentile",
    "vote_longest_ms": "the same, the longest",
    "votes_done_per_s": "votes stored a second, of 200 offered",
    "reads_meanwhile": "rounds of rows, like_rates and waiting meanwhile",
    "dataset_rows": "feedback rows of the biggest server",
    "dataset_examples": "training examples made of them",
    "dataset_s": "rows and select_examples, s",
    "dataset_rows_s": "of which reading the rows, s",
    "dataset_peak_mib": "memory at its peak above the start, MiB",
    "forget_message_ms": "forgetting one platform message, ms",
    "forget_person_s": "forgetting one person, with VACUUM, s",
    "growth_dataset": "growth exponent of the training set",
    "growth_vote": "growth exponent of a vote",
    "growth_startup": "growth exponent of start-up",
    "growth_exponent": "the largest of the three",
}


@dataclass(frozen=True, slots=True)
class Size:
    """How much a year holds."""

    replies: int
    votes: int
    people: int

    def tenth(self) -> Size:
        """Return the same year in a tenth of the town."""
        return Size(self.replies // 10, self.votes // 10, self.people // 10)


FULL = Size(1_000_000, 200_000, 20_000)


@dataclass(frozen=True, slots=True)
class Costs:
    """Medians of what is compared between two sizes, in seconds."""

    dataset: float
    vote: float
    startup: float

    def growth(self, smaller: Costs) -> dict[str, float]:
        """Return the growth exponents against a tenth of the size."""
        names = ("dataset", "vote", "startup")
        return {
            f"growth_{name}": math.log10(getattr(self, name) / getattr(smaller, name))
            for name in names
        }


# -- filling


def fill(path: Path, size: Size, *, seed: int = 0) -> None:
    """Write a synthetic year to a new database."""
    Database(path).close()
    connection, chance = connect(path), random.Random(seed)
    connection.run("PRAGMA synchronous = OFF")
    connection.run("PRAGMA cache_size = -400000")
    people = [new_id("p") for _ in range(size.people)]
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
    for scope, _ in SERVERS:
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
    names, shares = zip(*SERVERS, strict=True)
    open_chains: dict[str, tuple[str, int]] = {}
    for index in range(size.replies):
        scope, at = chance.choices(names, shares)[0], _moment(index * YEAR_S / size.replies)
        rows: Rows = {}
        conversation, left = open_chains.get(scope, ("", 0))
        if not left:
            conversation, left = new_id("c"), CHAIN
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
    reply_id, message = new_id("r"), FIRST_MESSAGE + index * 8
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
    identity = new_id("f")
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


def _progress(line: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()
    elif line:
        print(line, file=sys.stderr)


# -- measuring


def measure(home: Path, size: Size, *, vote_s: float = 20.0) -> dict[str, Any]:
    """Fill a year and a tenth of one, measure both, then delete in the larger one."""
    small, large = home / "tenth.db", home / "year.db"
    fill(small, size.tenth())
    began = time.perf_counter()
    fill(large, size)
    figures: dict[str, Any] = {"replies": size.replies, "votes": size.votes, "people": size.people}
    figures["fill_s"] = time.perf_counter() - began
    figures["file_mb"] = large.stat().st_size / 1e6
    figures |= _alone(_dataset, large)
    smaller, larger = costs(small), costs(large)
    figures |= {"startup_s": larger.startup, "dataset_s": larger.dataset}
    figures |= votes_beside_readers(large, vote_s)
    figures |= _forgetting(large)
    growth = larger.growth(smaller)
    return figures | growth | {"growth_exponent": max(growth.values())}


def costs(path: Path, rounds: int = 5) -> Costs:
    """Return the medians of what is compared between sizes; each runs in a quiet process."""
    startup = [_seconds(lambda: Database(path).close()) for _ in range(rounds)]
    datasets = [_alone(_dataset, path)["dataset_s"] for _ in range(3)]
    with Database(path) as db:
        targets = _targets(db, 40 * rounds)
        votes = [_seconds(lambda pair=pair: db.feedback.vote(*pair, "up")) for pair in targets]
    return Costs(median(datasets), median(votes), median(startup))


def votes_beside_readers(path: Path, duration_s: float) -> dict[str, Any]:
    """Vote at a steady pace while another process reads without pause."""
    spawn = multiprocessing.get_context("spawn")
    ready, stop, rounds = spawn.Event(), spawn.Event(), spawn.Value("i", 0)
    reader = spawn.Process(target=_read_on, args=(path, ready, stop, rounds))
    reader.start()
    try:
        ready.wait()
        with Database(path) as db:
            targets = _targets(db, int(duration_s * VOTES_PER_S))
            began = time.perf_counter()
            latencies = _paced(db, targets, began)
            took = time.perf_counter() - began
    finally:
        stop.set()
        reader.join()
    return {
        "vote_p50_ms": 1e3 * median(latencies),
        "vote_p99_ms": 1e3 * quantile(latencies, 0.99),
        "vote_longest_ms": 1e3 * max(latencies),
        "votes_done_per_s": len(latencies) / took,
        "reads_meanwhile": rounds.value,
    }


def _paced(db: Database, targets: list[tuple[str, str]], began: float) -> list[float]:
    """Vote when each vote is due; return how long after that it was stored, a queue included."""
    latencies = []
    for index, (reply_id, person_id) in enumerate(targets):
        due = began + index / VOTES_PER_S
        time.sleep(max(0.0, due - time.perf_counter()))
        db.feedback.vote(reply_id, person_id, "up" if index % 3 else "down")
        latencies.append(time.perf_counter() - due)
    return latencies


def _read_on(path: Path, ready: Any, stop: Any, rounds: Any) -> None:
    with Database(path) as db:
        ready.set()
        while not stop.is_set():
            db.feedback.rows(BIG)
            db.feedback.like_rates(BIG)
            db.feedback.waiting(BIG)
            rounds.value += 1


def _dataset(path: Path) -> dict[str, Any]:
    """Build the biggest server's training set; the memory is this whole process's."""
    with Database(path) as db:
        gc.collect()
        before = _memory_mib("VmRSS")
        began = time.perf_counter()
        rows = db.feedback.rows(BIG)
        read_s = time.perf_counter() - began
        examples = select_examples(rows, person_share=PERSON_SHARE).examples
        took = time.perf_counter() - began
    return {
        "dataset_rows": len(rows),
        "dataset_examples": len(examples),
        "dataset_s": took,
        "dataset_rows_s": read_s,
        "dataset_peak_mib": _memory_mib("VmHWM") - before,
    }


def _forgetting(path: Path) -> dict[str, Any]:
    with Database(path) as db:
        reply_id, person_id = _targets(db, 1)[0]
        message = db.replies.sources(reply_id)[0]
        message_s = _seconds(lambda: db.replies.forget_message(message))
        person_s = _seconds(lambda: db.people.forget(person_id, actor="benchmark"))
    return {"forget_message_ms": 1e3 * message_s, "forget_person_s": person_s}


def _targets(db: Database, count: int) -> list[tuple[str, str]]:
    """Draw that many kept replies of the biggest server, each with one of its authors."""
    connection = connect(db.path)
    try:
        rows = connection.all(
            """SELECT r.id, min(a.person_id) AS person FROM replies r
            JOIN reply_authors a ON a.reply_id = r.id
            WHERE r.id IN (SELECT id FROM replies WHERE scope = ? AND kept ORDER BY random()
            LIMIT ?) GROUP BY r.id""",
            (BIG, count),
        )
    finally:
        connection.close()
    return [(row["id"], row["person"]) for row in rows]


def _alone(call: Callable[[Path], dict[str, Any]], path: Path) -> dict[str, Any]:
    """Run in a fresh process, so that its memory is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, path).result()


def _memory_mib(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii"))
    return int(found[1]) / 1024 if found else math.nan


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def show(figures: dict[str, Any]) -> None:
    """Print each figure with what it is and, where there is one, its bound."""
    for name, what in WHAT.items():
        value = figures[name]
        shown = f"{value:,.3f}" if isinstance(value, float) else f"{value:,}"
        bound = BOUNDS.get(name)
        verdict = "" if bound is None else f"at most {bound:g}  {_kept(value, bound)}"
        print(f"{what:<50} {shown:>12}  {verdict}".rstrip())


def _kept(value: float, bound: float) -> str:
    return "ok" if value <= bound else "MISSED"


def main() -> None:
    """Run and print."""
    options = arguments("What a year of a busy bot costs its database.")
    with scratch() as home:
        figures = measure(home, FULL.tenth() if options.quick else FULL)
    show(figures)
    if options.json:
        ratios = ("vote_p99_ms", "dataset_s", "startup_s", "growth_exponent")
        print(json.dumps({**figures, "ratios": {name: figures[name] for name in ratios}}))


if __name__ == "__main__":
    main()
