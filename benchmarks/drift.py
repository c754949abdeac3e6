"""`python -m benchmarks.drift [--json]`: ten retrainings in a row on a community that changes.

What is lost on the way shows here: keep-set, repetition, distance from the base and like-rates
after each run (benchmarks.learning.series). An interrupted series goes on where it stopped;
`--report` writes docs/learning.md's part from what is done.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.common import default_world
from benchmarks.learning.cells import DRAWN
from benchmarks.learning.prompts import split_prompts
from benchmarks.learning.queue import Task, work_off
from benchmarks.learning.report import series_table, write_series
from benchmarks.learning.series import Series, measure_series, plan_series, run_directory
from benchmarks.learning.tastes import TASTES
from core.settings import load_settings
from trainer.recipes import RECIPES


def main() -> int:
    """Do what is missing of the series, print its table; return whether it failed."""
    options = _parse()
    recipe = "" if options.recipe == "auto" else f"@{options.recipe}"
    size = f"{options.runs}x{options.votes}"
    directory: Path = (
        options.directory / f"{options.old}-{options.new}-{size}-s{options.seed}{recipe}"
    )
    failed = 0
    if not options.report:
        _plan(directory, options)
        last = run_directory(directory, options.runs) / DRAWN
        failed = work_off([Task(f"series={directory}", last)], directory, 1)
    found = measure_series(directory, load_settings().gate)
    print("\n".join(series_table(found)))
    if options.report:
        write_series(found, options.old, options.new)
    if options.json:
        print(json.dumps({"runs": [asdict(one) for one in found]}))
    return failed


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Many retrainings in a row.")
    parser.add_argument("--json", action="store_true", help="print one object as the last line")
    parser.add_argument("--report", action="store_true", help="add it to docs/learning.md and stop")
    parser.add_argument("--directory", type=Path, default=Path("var/drift"))
    parser.add_argument("--old", choices=TASTES, default="human", help="the taste at first")
    parser.add_argument("--new", choices=TASTES, default="echo", help="the taste at last")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--votes", type=int, default=80, help="before each run")
    parser.add_argument("--recipe", choices=RECIPES, default="auto")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _plan(directory: Path, options: argparse.Namespace) -> None:
    _, base = default_world()
    prompts, unseen = split_prompts()
    series = Series(
        old=options.old,
        new=options.new,
        runs=options.runs,
        votes=options.votes,
        seed=options.seed,
        base=(base.name, base.sha256, str(base.path.resolve())),
        prompts=prompts,
        unseen=unseen,
        recipe=options.recipe,
    )
    plan_series(directory, series)


if __name__ == "__main__":
    sys.exit(main())
