"""How fast the engine answers many chats over many adapters, and how peers answer the same.

1 to 32 chats at once over 0 to 8 adapters with real contexts (benchmarks.load), and in every round
the peers (benchmarks.peers) on the same requests. Figures that are compared are medians over the
rounds, a ratio is taken within a round, and the other cells are run once. Linux: memory is read
from /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import (
    arguments,
    default_world,
    median,
    peak_memory_mib,
    scratch,
    start_engine,
)
from benchmarks.load import (
    ADAPTERS,
    ALONE,
    COMPARED,
    MIXED,
    PLAIN,
    Cell,
    run_cell,
    timed,
    unknown_contexts,
    warm_up,
)
from benchmarks.peers import Peers
from benchmarks.peers_torch import World
from benchmarks.results import append, machine, print_table
from benchmarks.serving_report import (
    Measured,
    cell_lines,
    figures_of,
    memory_limit,
    other_lines,
    rows_of,
)
from core.basemodel import BaseModel
from core.generation import Engine
from core.settings import Settings

ROUNDS = 5
MOST_CHATS = 32
CELLS = tuple(Cell(chats, n) for chats in (1, 4, 16, MOST_CHATS) for n in (0, 1, 4, 8))
QUICK_CELLS = (ALONE, Cell(1, 1), PLAIN, MIXED, Cell(MOST_CHATS, 8))
COLD_TOKENS, COLD_TIMES = 200, 5


async def measure(home: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run all rounds; return medians, ratios and the limit that memory sets."""
    settings, base = default_world()
    rounds = 1 if options.quick else ROUNDS
    others = [one for one in (QUICK_CELLS if options.quick else CELLS) if one not in COMPARED]
    world = World(base, tuple(home / name for name in ADAPTERS))
    peers, measured = Peers(world), Measured()
    try:
        _say("making adapters")
        lora = await peers.prepare(home)
        engine = await _started(settings, world)
        try:
            for turn in range(rounds):
                _say(f"round {turn + 1} of {rounds}")
                await _run(engine, COMPARED, turn, measured)
                await peers.run_round(turn, lora)
                await _first_tokens(engine, peers, base, turn)
            _say("the other cells")
            await _run(engine, [one for one in others if one.chats < MOST_CHATS], 0, measured)
        finally:
            await engine.close()
        measured.peaks_mib["16 chats"] = peak_memory_mib()
        many = [cell for cell in others if cell.chats == MOST_CHATS]
        await _many_chats(settings, world, many, measured)
        measured.peaks_mib["32 chats"] = peak_memory_mib()
        bandwidth = await peers.read_bandwidth()
    finally:
        peers.close()
    measured.samples.update(peers.samples)
    measured.notes.extend(peers.notes)
    limit = memory_limit(settings, base, measured, bandwidth)
    return {"machine": machine(), "rounds": rounds, **figures_of(measured), "memory_limit": limit}


async def _many_chats(
    settings: Settings, world: World, cells: Sequence[Cell], measured: Measured
) -> None:
    """Run the cells that need more places than an engine has by default."""
    wider = settings.serving.model_copy(update={"max_batch": MOST_CHATS})
    engine = await _started(settings.model_copy(update={"serving": wider}), world)
    try:
        _say(f"{MOST_CHATS} chats")
        await _run(engine, cells, 0, measured)
    finally:
        await engine.close()


async def _started(settings: Settings, world: World) -> Engine:
    engine = await start_engine(settings, world.base)
    for path in world.adapters:
        await engine.load(path.name, path)
        await engine.warm(path.name)
    return engine


async def _run(engine: Engine, cells: Sequence[Cell], turn: int, measured: Measured) -> None:
    for cell in cells:
        await warm_up(engine, cell)
        measured.cells[cell.name].append(
            await run_cell(engine, cell, cell.requests(turn), seed=turn)
        )


async def _first_tokens(engine: Engine, peers: Peers, base: BaseModel, turn: int) -> None:
    """Time first tokens of contexts never seen, ours and llama.cpp's in turn."""
    from serving.base import load_tokenizer

    requests = unknown_contexts(
        load_tokenizer(base), COLD_TIMES, tokens=COLD_TOKENS, seed=9000 + turn
    )
    ours, theirs = [], []
    for request in requests:
        ours.append((await timed(engine, request)).arrivals_s[0])
        if (took := await peers.first_token_s(request)) is not None:
            theirs.append(took)
    peers.samples["first_token_ms"].append(1e3 * median(ours))
    if theirs:
        peers.samples["llama_cpp_first_token_ms"].append(1e3 * median(theirs))


def _say(step: str) -> None:
    print(step, file=sys.stderr, flush=True)


def main() -> None:
    """Run and print."""
    options = arguments("Chats and adapters at once, beside PEFT, transformers and llama.cpp.")
    with scratch() as home:
        figures = asyncio.run(measure(home, options))
    rows, more = rows_of(figures), [*cell_lines(figures), "", *other_lines(figures)]
    print(figures["machine"], end="\n\n")
    print_table(rows)
    print("", *more, sep="\n")
    if options.record:
        append("Chats at once over adapters", rows, more)
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
