"""How long a reply stalls while adapters are promoted and rolled back under it.

Eight streams at all times; twenty changes of the speaking adapter between three adapters, each
loaded from disk, validated, warmed and made to speak, the one before unloaded. The same streams
without swaps stand beside it, in the same process.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from benchmarks.common import (
    QUESTIONS,
    Timed,
    arguments,
    default_world,
    make_engine,
    median,
    quantile,
    random_adapter,
    report,
    scratch,
)
from benchmarks.common import timed_reply as timed_reply_of
from core.generation import BASE, Engine

STREAMS = 8
SWAPS = 20
MAX_TOKENS = 64


async def measure(home: Path, swaps: int) -> dict[str, Any]:
    """Stream without and with swaps; return the gaps in milliseconds."""
    settings, base = default_world()
    adapters = {
        name: await asyncio.to_thread(random_adapter, home / name, base, name, seed)
        for seed, name in enumerate(("bench@v1", "bench@v2", "bench@v3"), start=1)
    }
    engine = make_engine(settings, base)
    await engine.start()
    try:
        idle = await _stream_while(engine, asyncio.sleep(20 if swaps >= SWAPS else 8), [BASE])
        speaking = [BASE]
        latencies: list[float] = []
        busy = await _stream_while(
            engine, _swap(engine, adapters, speaking, swaps, latencies), speaking
        )
    finally:
        await engine.close()
    return _figures(idle, busy, latencies, swaps)


async def _stream_while(engine: Engine, work: Any, speaking: list[str]) -> list[Timed]:
    """Keep STREAMS replies running until `work` is done, then let them end."""
    done: list[Timed] = []
    task = asyncio.ensure_future(work)

    async def keep_asking(place: int) -> None:
        asked = place
        while not task.done():
            question = QUESTIONS[asked % len(QUESTIONS)]
            done.append(
                await timed_reply_of(
                    engine, question, speaking[0], max_tokens=MAX_TOKENS, seed=asked
                )
            )
            asked += STREAMS

    await asyncio.gather(*(keep_asking(place) for place in range(STREAMS)))
    await task
    return done


async def _swap(
    engine: Engine,
    adapters: dict[str, Path],
    speaking: list[str],
    swaps: int,
    latencies: list[float],
) -> None:
    names = list(adapters)
    unloading: list[asyncio.Task[None]] = []
    for index in range(swaps):
        name = names[index % len(names)]
        started = time.perf_counter()
        await asyncio.gather(*(task for task in unloading if task.get_name() == name))
        await engine.load(name, adapters[name])
        await engine.warm(name)
        old, speaking[0] = speaking[0], name
        latencies.append(time.perf_counter() - started)
        if old != BASE:
            unloading.append(asyncio.create_task(engine.unload(old), name=old))
        await asyncio.sleep(0.5)
    await asyncio.gather(*unloading)


def _figures(
    idle: list[Timed], busy: list[Timed], latencies: list[float], swaps: int
) -> dict[str, Any]:
    still = [gap for timed in idle for gap in timed.gaps_s]
    moved = [gap for timed in busy for gap in timed.gaps_s]
    return {
        "streams": STREAMS,
        "swaps": swaps,
        "replies_without_swaps": len(idle),
        "replies_with_swaps": len(busy),
        "adapters_seen": len({timed.adapter for timed in busy}),
        "gap_p50_ms_without": 1e3 * median(still),
        "gap_p99_ms_without": 1e3 * quantile(still, 0.99),
        "gap_longest_ms_without": 1e3 * max(still),
        "gap_p50_ms_with": 1e3 * median(moved),
        "gap_p99_ms_with": 1e3 * quantile(moved, 0.99),
        "gap_longest_ms_with": 1e3 * max(moved),
        "load_to_speaking_p50_ms": 1e3 * median(latencies),
        "gap_longest_with_vs_p99_without": max(moved) / quantile(still, 0.99),
    }


def main() -> None:
    """Run and print."""
    options = arguments("Token gaps while adapters are swapped under 8 streams.")
    with scratch() as home:
        report(options, asyncio.run(measure(home, SWAPS // 4 if options.quick else SWAPS)))


if __name__ == "__main__":
    main()
