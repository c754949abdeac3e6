"""What replicas under Ray Serve give and cost: sixteen chats on one, on two, and on a plain engine.

All three are open at the same time and answer the same requests in turn, so what else the machine
does falls on all alike. A replica of one holds every core, each of two a half: they share what the
plain engine has alone. So on one machine this shows what Serve costs; what more machines bring it
cannot show. A promotion is timed too: until every replica holds a new version.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.common import (
    arguments,
    default_world,
    median,
    random_adapter,
    scratch,
    start_engine,
)
from benchmarks.load import PLAIN, Figures, run_cell, warm_up
from benchmarks.results import Row, append, machine, print_table
from core.basemodel import BaseModel
from core.generation import Engine
from core.processors import available_cores
from core.settings import Settings

ROUNDS, QUICK_ROUNDS = 5, 1
SWAPS = 5
ARMS = {"plain": 0, "one": 1, "two": 2}
"""The engines, and how many replicas each has; none is the engine in this process."""


@dataclass
class Found:
    """What each arm gave, round by round, and what a promotion took it, in milliseconds."""

    cells: dict[str, list[Figures]] = field(default_factory=lambda: {arm: [] for arm in ARMS})
    swaps_ms: dict[str, list[float]] = field(default_factory=lambda: {arm: [] for arm in ARMS})

    def of(self, arm: str, figure: Callable[[Figures], float]) -> float:
        """Return the median of a figure."""
        return median([figure(one) for one in self.cells[arm]])

    def ratio(self, arm: str, figure: Callable[[Figures], float]) -> float:
        """Return the median of the ratios to the plain engine, each within a round."""
        pairs = zip(self.cells[arm], self.cells["plain"], strict=True)
        return median([figure(ours) / figure(plain) for ours, plain in pairs])


def settings_for(settings: Settings, replicas: int) -> Settings:
    """Return settings of so many replicas on a Ray of this machine, which share its cores."""
    if not replicas:
        return settings
    threads = max(1, available_cores() // replicas)
    serving = settings.serving.model_copy(update={"backend": "ray", "threads": threads})
    ours = {"app": f"bench-{replicas}", "min": replicas, "max": replicas}
    about = settings.replicas.model_copy(update=ours)
    return settings.model_copy(update={"serving": serving, "replicas": about})


async def measure(home: Path, rounds: int) -> Found:
    """Run all arms in every round, each time beginning with another one."""
    settings, base = default_world()
    found, arms = Found(), list(ARMS)
    async with AsyncExitStack() as stack:
        stack.enter_context(_ray(home))
        engines: dict[str, Engine] = {}
        for arm in arms:
            engines[arm] = await start_engine(settings_for(settings, ARMS[arm]), base)
            stack.push_async_callback(engines[arm].close)
            await warm_up(engines[arm], PLAIN)
        for turn in range(rounds):
            for arm in arms[turn % len(arms) :] + arms[: turn % len(arms)]:
                figures = await run_cell(engines[arm], PLAIN, PLAIN.requests(turn), seed=turn)
                found.cells[arm].append(figures)
        await _swap(home, base, engines, found)
    return found


@contextmanager
def _ray(home: Path) -> Iterator[None]:
    """Begin a Ray that believes in cores enough for both arms: they never write at once."""
    import ray

    ray.init(
        address="local",
        num_cpus=2 * available_cores(),
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        _temp_dir=str(home / "ray"),
    )
    try:
        yield
    finally:
        ray.shutdown()


async def _swap(home: Path, base: BaseModel, engines: dict[str, Engine], found: Found) -> None:
    """Time loads with nothing else going on, each arm in turn."""
    for number in range(1, SWAPS + 1):
        name = f"bench@v{number}"
        place = await asyncio.to_thread(random_adapter, home / name, base, name, number)
        for arm, engine in engines.items():
            began = time.perf_counter()
            await engine.load(name, place)
            await engine.warm(name)
            found.swaps_ms[arm].append(1e3 * (time.perf_counter() - began))
            await engine.unload(name)


def rows_of(found: Found) -> Sequence[Row]:
    """Return the table: each figure of one and of two replicas beside the plain engine's."""
    figures: tuple[tuple[str, Callable[[Figures], float]], ...] = (
        ("tokens/s", lambda one: one.tokens_per_s),
        ("first token, median ms", lambda one: one.first_p50_ms),
        ("gap between pieces, median ms", lambda one: one.gap_p50_ms),
        ("gap between pieces, p99 ms", lambda one: one.gap_p99_ms),
    )
    rows = [
        Row(
            f"{what}, {arm} (peer: the plain engine)",
            found.of(arm, figure),
            found.of("plain", figure),
            found.ratio(arm, figure),
        )
        for what, figure in figures
        for arm in ("one", "two")
    ]
    plain = median(found.swaps_ms["plain"])
    for arm in ("one", "two"):
        took = median(found.swaps_ms[arm])
        rows.append(Row(f"a version loaded everywhere, {arm}, ms", took, plain, took / plain))
    return rows


def main() -> None:
    """Run and print."""
    options: argparse.Namespace = arguments("Sixteen chats on replicas beside a plain engine.")
    with scratch() as home:
        found = asyncio.run(measure(home, QUICK_ROUNDS if options.quick else ROUNDS))
    rows = rows_of(found)
    print(machine(), end="\n\n")
    print_table(rows)
    if options.record:
        append("Sixteen chats on replicas under Ray Serve", rows)
    if options.json:
        print(json.dumps({row.what: row.ours for row in rows}))


if __name__ == "__main__":
    main()
