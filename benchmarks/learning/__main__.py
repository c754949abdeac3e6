"""`python -m benchmarks.learning`: how much better replies get per vote, cell by cell.

Cells that are finished are never run again and an interrupted grid goes on where it stopped; two
are worked on side by side, on one thread each. `--quick` is two cells, within a quarter of an hour
on two cores; the whole grid takes hours there. The figures of every cell are kept in `figures.json`
in the directory of the cells.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.common import default_world
from benchmarks.learning.arms import ARMS, World
from benchmarks.learning.cells import BASE_DRAWN, Cell, is_done, make_cell, read_drawn
from benchmarks.learning.community import feedback_rows
from benchmarks.learning.measure import Figures, mean_interval, measure_cell
from benchmarks.learning.pool import load_pool
from benchmarks.learning.prompts import TRAIN, UNSEEN, split_prompts
from benchmarks.learning.tastes import TASTES
from benchmarks.results import aligned
from trainer.recipes import RECIPES

SEEDS = (0, 1)
QUICK = (Cell("human", "votes-100", 0), Cell("echo", "votes-100", 0))
QUICK_PROMPTS, QUICK_UNSEEN = 320, 48
AT_ONCE = 2


def main() -> int:
    """Run what is missing, print the table; return how many cells failed."""
    options = _parse()
    cells = _grid(options)
    home = options.directory / ("quick" if options.quick else "full")
    _make(cells, home, options.quick)
    failed = _work(cells, home)
    found = _measure(cells, home)
    _print(found)
    (home / "figures.json").write_text(json.dumps(_object(found), indent=1), encoding="utf-8")
    if options.json:
        print(json.dumps(_object(found)))
    return failed


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How much better replies get per vote.")
    parser.add_argument("--quick", action="store_true", help="two cells, about 15 minutes")
    parser.add_argument("--json", action="store_true", help="print one object as the last line")
    parser.add_argument("--directory", type=Path, default=Path("var/learning"))
    parser.add_argument("--tastes", default=",".join(TASTES), help="some of them, with commas")
    parser.add_argument("--arms", default=",".join(ARMS), help="some of them, with commas")
    parser.add_argument("--recipe", choices=RECIPES, default="auto", help="of every cell")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="with commas")
    return parser.parse_args()


def _grid(options: argparse.Namespace) -> list[Cell]:
    variant = "" if options.recipe == "auto" else options.recipe
    if options.quick:
        return [replace(cell, variant=variant) for cell in QUICK]
    tastes, arms = options.tastes.split(","), options.arms.split(",")
    unknown = sorted({*tastes} - {*TASTES} | {*arms} - {*ARMS})
    if unknown:
        raise SystemExit(f"unknown: {', '.join(unknown)}; known: {', '.join([*TASTES, *ARMS])}")
    return [
        Cell(taste, arm, int(seed), variant)
        for seed in options.seeds.split(",")
        for arm in arms
        for taste in tastes
    ]


def _make(cells: Sequence[Cell], home: Path, quick: bool) -> None:
    """Write the directories of the cells; the base's replies they need are drawn first."""
    settings, base = default_world()
    train, unseen = (QUICK_PROMPTS, QUICK_UNSEEN) if quick else (TRAIN, UNSEEN)
    prompts, asked = split_prompts(train, unseen)
    if all((home / cell.name).exists() for cell in cells):
        return
    pool = load_pool(home.parent / "pool.jsonl", prompts, 1 if quick else 2, _tell_pool)
    world = World(prompts, pool)
    for cell in cells:
        signals = ARMS[cell.arm](TASTES[cell.taste], world, cell.seed)
        make_cell(
            home / cell.name,
            feedback_rows(signals),
            asked,
            settings,
            base=(base.name, base.sha256, str(base.path.resolve())),
            seed=cell.seed,
            recipe=cell.variant or "auto",
        )


def _tell_pool(done: int, count: int) -> None:
    if done % 50 == 0 or done == count:
        print(f"the base's replies: {done} of {count}", file=sys.stderr, flush=True)


def _work(cells: Sequence[Cell], home: Path) -> int:
    """Work on what is not done, AT_ONCE processes side by side; return how many failed."""
    waiting = [str(home / cell.name) for cell in cells if not is_done(home / cell.name)]
    if not (home / BASE_DRAWN).exists():
        waiting.append(f"base={home / cells[0].name}")
    running: list[tuple[str, subprocess.Popen[bytes], float]] = []
    failed, total = 0, len(waiting)
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            name = waiting.pop(0)
            running.append((name, _start(name, home), time.monotonic()))
        time.sleep(0.5)
        for entry in [entry for entry in running if entry[1].poll() is not None]:
            running.remove(entry)
            name, process, began = entry
            failed += process.returncode != 0
            done = total - len(waiting) - len(running)
            ending = "done" if process.returncode == 0 else f"FAILED, see {home / 'work.log'}"
            took = f"{time.monotonic() - began:.0f} s"
            print(f"{done} of {total}: {Path(name).name} {ending} in {took}", file=sys.stderr)
    return failed


def _start(name: str, home: Path) -> subprocess.Popen[bytes]:
    with (home / "work.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks.learning.work", name],
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "MALLOC_MMAP_MAX_": "0",  # see docs/experiments.md
                "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
            },
            stdout=log,
            stderr=log,
        )


def _measure(cells: Sequence[Cell], home: Path) -> dict[Cell, Figures]:
    base = read_drawn(home, BASE_DRAWN)
    return {
        cell: measure_cell(home / cell.name, TASTES[cell.taste], base)
        for cell in cells
        if is_done(home / cell.name)
    }


def _print(found: dict[Cell, Figures]) -> None:
    head = (
        "arm",
        "taste",
        "seed",
        "recipe",
        "base",
        "liked",
        "interval",
        "words",
        "keep-set",
        "gate",
    )
    body = [
        [
            cell.arm,
            cell.taste,
            str(cell.seed),
            cell.variant or "auto",
            f"{one.base_like:.2f}",
            f"{one.like:.2f}",
            f"{one.like_low:.2f} to {one.like_high:.2f}",
            f"{one.base_words:.0f} → {one.words:.0f}",
            f"{-one.keep_fall:+.2f}",
            "accepted" if one.accepted else f"refused: {one.failed}",
        ]
        for cell, one in found.items()
    ]
    print("\n".join(aligned(head, body)))
    for arm, likes in _by_arm(found).items():
        low, high = mean_interval(likes)
        print(f"{arm}: mean like-rate {fmean(likes):.3f} ({low:.3f} to {high:.3f} over cells)")


def _by_arm(found: dict[Cell, Figures]) -> dict[str, list[float]]:
    arms: defaultdict[str, list[float]] = defaultdict(list)
    for cell, one in found.items():
        arms[cell.arm + (f"@{cell.variant}" if cell.variant else "")].append(one.like)
    return dict(arms)


def _object(found: dict[Cell, Figures]) -> dict[str, Any]:
    return {
        "cells": {cell.name: one.as_dict() for cell, one in found.items()},
        "arms": {
            arm: {"like": fmean(likes), "interval": mean_interval(likes), "cells": len(likes)}
            for arm, likes in _by_arm(found).items()
        },
    }


if __name__ == "__main__":
    sys.exit(main())
