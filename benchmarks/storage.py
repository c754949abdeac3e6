"""What a year of a busy bot costs its database: votes, training sets, start-up, deletion, growth.

A synthetic year (benchmarks.year) in a temporary directory, with a vote on a fifth of the replies;
everything measured goes through the stores. Readers run in a process of their own, as a second
command beside the bot does; memory is read from /proc, so this needs Linux.

`growth_exponent` is log10 of what an operation costs here over what it costs at a tenth of the
size, measured in turn; the largest of three medians: 0 is a cost that does not grow, 1 one that
grows with the data.
"""

from __future__ import annotations

import gc
import json
import math
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, median, memory_mib, quantile, scratch
from benchmarks.results import Row, append, print_table
from benchmarks.year import BIG, Size, fill
from storage.connection import connect
from storage.database import Database
from trainer.dataset import select_examples

PERSON_SHARE = 0.25
ROUNDS, VOTES_A_ROUND = 5, 40
VOTES_PER_S = 200
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


FULL = Size(1_000_000, 200_000, 20_000)


@dataclass(frozen=True, slots=True)
class Costs:
    """What is compared between two sizes, in seconds."""

    dataset: float
    vote: float
    startup: float


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
    pairs = [(costs(small), costs(large)) for _ in range(ROUNDS)]
    figures["startup_s"] = median([larger.startup for _, larger in pairs])
    figures["dataset_s"] = median([larger.dataset for _, larger in pairs])
    figures |= votes_beside_readers(large, vote_s)
    figures |= _forgetting(large)
    return figures | growth(pairs)


def costs(path: Path) -> Costs:
    """Measure once what is compared between sizes; a training set in a process of its own."""
    startup = _seconds(lambda: Database(path).close())
    dataset = _alone(_dataset, path)["dataset_s"]
    with Database(path) as db:
        targets = _targets(db, VOTES_A_ROUND)
        votes = [_seconds(partial(db.feedback.vote, *pair, kind="up")) for pair in targets]
    return Costs(dataset, median(votes), startup)


def growth(pairs: Sequence[tuple[Costs, Costs]]) -> dict[str, float]:
    """Return the growth exponents against a tenth of the size, medians over the rounds."""
    exponents = {
        f"growth_{name}": median(
            [math.log10(getattr(large, name) / getattr(small, name)) for small, large in pairs]
        )
        for name in ("dataset", "vote", "startup")
    }
    return exponents | {"growth_exponent": max(exponents.values())}


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
        before = memory_mib("VmRSS")
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
        "dataset_peak_mib": memory_mib("VmHWM") - before,
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


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def rows_of(figures: dict[str, Any]) -> list[Row]:
    """Return each figure with what it is and, where there is one, its bound."""
    return [
        Row(
            what,
            figures[name],
            ratio=figures[name] if name in BOUNDS else None,
            at_most=BOUNDS.get(name),
        )
        for name, what in WHAT.items()
    ]


def main() -> None:
    """Run and print."""
    options = arguments("What a year of a busy bot costs its database.")
    with scratch() as home:
        figures = measure(home, FULL.tenth() if options.quick else FULL)
    rows = rows_of(figures)
    print_table(rows)
    if options.record:
        append("A year of a busy bot in its database", rows)
    if options.json:
        ratios = ("vote_p99_ms", "dataset_s", "startup_s", "growth_exponent")
        print(json.dumps({**figures, "ratios": {name: figures[name] for name in ratios}}))


if __name__ == "__main__":
    main()
