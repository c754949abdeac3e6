"""`python -m benchmarks.learning`: how much better replies get per vote, cell by cell.

Cells that are finished are never run again and an interrupted grid goes on where it stopped; two
are worked on side by side, on one thread each. `--quick` is two cells, within a quarter of an hour
on two cores; the whole grid takes hours there. The figures of every cell are kept in `figures.json`
in the directory of the cells; `--report` adds them to docs/learning.json, writes docs/learning.md
from that and runs nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.learning.cells import Cell
from benchmarks.learning.grid import (
    ALL_ARMS,
    FIGURES,
    QUICK,
    as_object,
    has_instructions,
    keep_figures,
    make_cells,
    measure_cells,
    read_basis,
    read_figures,
    tasks_of,
    wanted_cells,
    write_figures,
)
from benchmarks.learning.instructions import DATA, read_choice
from benchmarks.learning.measure import Figures, by_arm, mean_interval
from benchmarks.learning.page import PAGE
from benchmarks.learning.queue import work_off
from benchmarks.learning.report import write_report
from benchmarks.learning.tastes import TASTES
from benchmarks.results import aligned
from trainer.recipes import RECIPES

SEEDS = (0, 1)
AT_ONCE = 2
MEASURED = PAGE.with_suffix(".json")
"""The figures of every cell that was reported, on this machine or another."""
_HEAD = (
    "arm", "taste", "seed", "recipe", "base", "liked", "interval", "words", "keep-set", "IFEval",
    "gate",
)  # fmt: skip


def main() -> int:
    """Run what is missing, print the table; return how many tasks failed."""
    options = _parse()
    home = options.directory / ("quick" if options.quick else "full")
    if options.report:
        found = read_figures(MEASURED) | read_figures(home / FIGURES)
        choice = read_choice(home)
        basis = choice.basis if choice else read_basis(MEASURED)
        write_report(found, basis)
        write_figures(found, MEASURED, basis)
        return 0
    if options.data:
        os.environ[DATA] = str(options.data.resolve())
    cells = _cells(options)
    make_cells(cells, home, quick=options.quick)
    instructed = not options.quick and has_instructions(options.data)
    failed = work_off(tasks_of(cells, home, instructed=instructed), home, AT_ONCE)
    found = measure_cells(cells, home)
    keep_figures(found, home)
    _print(found)
    if options.json:
        print(json.dumps(_object(found)))
    return failed


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How much better replies get per vote.")
    parser.add_argument("--quick", action="store_true", help="two cells, about 15 minutes")
    parser.add_argument("--json", action="store_true", help="print one object as the last line")
    parser.add_argument("--report", action="store_true", help="write docs/learning.md and stop")
    parser.add_argument("--directory", type=Path, default=Path("var/learning"))
    parser.add_argument("--data", type=Path, help=f"with IFEval's easy prompts (else ${DATA})")
    parser.add_argument("--tastes", default=",".join(TASTES), help="some of them, with commas")
    parser.add_argument("--arms", default=",".join(ALL_ARMS), help="some of them, with commas")
    parser.add_argument("--recipe", choices=RECIPES, default="auto", help="of every cell")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="with commas")
    options = parser.parse_args()
    if options.quick and options.report:
        parser.error("--report is of the whole grid's cells; those of --quick are not like them")
    return options


def _cells(options: argparse.Namespace) -> list[Cell]:
    variant = "" if options.recipe == "auto" else options.recipe
    if options.quick:
        return [replace(cell, variant=variant) for cell in QUICK]
    seeds = [int(seed) for seed in options.seeds.split(",")]
    try:
        return wanted_cells(options.tastes.split(","), options.arms.split(","), seeds, variant)
    except ValueError as error:
        raise SystemExit(str(error)) from error


def _print(found: Mapping[Cell, Figures]) -> None:
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
            "-" if one.ifeval is None else f"{one.base_ifeval:.2f} → {one.ifeval:.2f}",
            "accepted" if one.accepted else f"refused: {one.failed}",
        ]
        for cell, one in found.items()
    ]
    print("\n".join(aligned(_HEAD, body)))
    for arm, likes in _likes(found).items():
        low, high = mean_interval(likes)
        print(f"{arm}: mean like-rate {fmean(likes):.3f} ({low:.3f} to {high:.3f} over cells)")


def _likes(found: Mapping[Cell, Figures]) -> dict[str, list[float]]:
    return {arm: [one.like for one in cells.values()] for arm, cells in by_arm(found).items()}


def _object(found: Mapping[Cell, Figures]) -> dict[str, Any]:
    return as_object(found) | {
        "arms": {
            arm: {"like": fmean(likes), "interval": mean_interval(likes), "cells": len(likes)}
            for arm, likes in _likes(found).items()
        },
    }


if __name__ == "__main__":
    sys.exit(main())
