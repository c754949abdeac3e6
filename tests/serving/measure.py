"""Print the engine's speed and its longest silences: `python -m tests.serving.measure BASE_DIR`.

Tokens per second for 1 and 16 chats, on the base and on four mixed adapters of rank 16; then the
gaps between two pieces of a reply with 8 chats going on, idle and while adapters are loaded and
swapped.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from core.basemodel import BaseModel, identify_base
from core.generation import BASE, GenerationRequest, Sampling
from core.manifest import MANIFEST, describe_directory
from core.sections import ServingSettings
from serving.engine import LocalEngine
from tests.serving.reference import chat
from tests.tiny import make_tiny_adapter

TOKENS = 64
NAMES = tuple(f"speed@v{number}" for number in range(1, 5))


def publish(home: Path, base: BaseModel) -> dict[str, Path]:
    """Write four rank-16 adapters for the base."""
    for seed, name in enumerate(NAMES):
        make_tiny_adapter(home / name, base.path, seed, rank=16, scale=0.02)
        manifest = describe_directory(
            home / name, name=name, base_model=base.name, base_sha256=base.sha256,
            run_id="run_speed", recipe="kto", created_at="2026-01-01T00:00:00.000000Z",
        )  # fmt: skip
        (home / name / MANIFEST).write_text(manifest.model_dump_json(), encoding="utf-8")
    return {name: home / name for name in NAMES}


def request(number: int, adapter: str, temperature: float = 0.0) -> GenerationRequest:
    """Ask for a long story."""
    text = f"Write a long story about the number {number} and its many friends."
    return GenerationRequest(chat(text), adapter, Sampling(temperature, max_tokens=TOKENS))


async def speed(engine: LocalEngine, chats: int, names: tuple[str, ...], heat: float) -> float:
    """Return tokens per second, the median of five rounds."""
    rates = []
    for _ in range(5):
        began = time.perf_counter()
        streams = [engine.generate(request(i, names[i % len(names)], heat)) for i in range(chats)]
        tokens = sum([len((await stream.result()).token_ids) for stream in streams])
        rates.append(tokens / (time.perf_counter() - began))
    return statistics.median(rates)


async def silences(engine: LocalEngine, homes: dict[str, Path]) -> dict[str, list[float]]:
    """Return the gaps between pieces, in milliseconds, sorted, idle and during 20 swaps."""
    gaps: dict[str, list[float]] = {"idle": [], "swaps": []}
    state, live, over = "idle", NAMES[0], False

    async def talk(number: int) -> None:
        while not over:
            last = None
            asked = request(number, live)
            asked = replace(asked, sampling=replace(asked.sampling, max_tokens=100))
            async for _ in engine.generate(asked):
                now = time.perf_counter()
                if last is not None:
                    gaps[state].append((now - last) * 1000)
                last = now

    chats = [asyncio.create_task(talk(number)) for number in range(8)]
    await asyncio.sleep(10)
    state = "swaps"
    for turn in range(1, 21):
        old, live = live, NAMES[turn % 3]
        await engine.load(live, homes[live])
        await engine.warm(live)
        leaving = asyncio.create_task(engine.unload(old))
        await asyncio.sleep(0.2)
        await leaving
    over = True
    await asyncio.gather(*chats)
    return {key: sorted(values) for key, values in gaps.items()}


async def measure(base: BaseModel, homes: dict[str, Path], threads: int) -> None:
    """Print every figure."""
    engine = LocalEngine(
        base, settings=ServingSettings(), dtype="auto", device="auto", threads=threads
    )
    await engine.start()
    for name in NAMES:
        await engine.load(name, homes[name])
    for chats in (1, 16):
        for label, names in (("base", (BASE,)), ("4 adapters", NAMES)):
            for heat in (0.0, 0.7):
                rate = await speed(engine, chats, names, heat)
                print(f"{chats:3} chats, {label}, temperature {heat}: {rate:.0f} tokens/s")
    for name in NAMES[1:]:
        await engine.unload(name)
    for state, values in (await silences(engine, homes)).items():
        p99 = values[int(len(values) * 0.99)]
        print(f"gaps {state}: median {statistics.median(values):.1f} ms, p99 {p99:.1f}, "
              f"longest {values[-1]:.1f} of {len(values)}", flush=True)  # fmt: skip
    await engine.close()


def main() -> None:
    """Measure the model directory given, on as many threads as given (2)."""
    threads = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    with tempfile.TemporaryDirectory() as home:
        base = identify_base("measured", Path(sys.argv[1]), Path(home))
        asyncio.run(measure(base, publish(Path(home), base), threads))


if __name__ == "__main__":
    main()
