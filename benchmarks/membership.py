"""`python -m benchmarks.membership [--json]`: what an adapter still knows of a forgotten person.

One person's corrections, read by adapters that learnt with them, after they were forgotten, and
where they never were (benchmarks.learning.person). `--report` writes docs/learning.md's part.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.common import default_world
from benchmarks.learning.arms import NOISE, World, votes
from benchmarks.learning.page import write_part
from benchmarks.learning.person import (
    LIKELIHOODS,
    Check,
    Membership,
    corrections,
    measure_check,
    plan_check,
)
from benchmarks.learning.pool import load_pool
from benchmarks.learning.prompts import split_prompts
from benchmarks.learning.queue import Task, work_off
from benchmarks.learning.report import membership_table
from benchmarks.learning.tastes import TASTES
from trainer.recipes import RECIPES

PROMPTS, VOTES, CORRECTIONS, RUNS = 480, 100, 24, 3


def main() -> int:
    """Do what is missing of the check and print it; return 1 if the person is still known."""
    options = _parse()
    directory: Path = options.directory / f"{options.taste}-{options.recipe}-s{options.seed}"
    if not options.report:
        _plan(directory, options)
        if work_off([Task(f"check={directory}", directory / LIKELIHOODS)], directory, 1):
            return 1
    found = measure_check(directory)
    print("\n".join(membership_table(found)))
    print(verdict(found))
    if options.report:
        write_part("membership", [*membership_table(found), "", verdict(found)])
    if options.json:
        print(json.dumps(found.as_dict()))
    return 0 if found.forgotten else 1


def verdict(found: Membership) -> str:
    """Say in one sentence what was found."""
    if found.words_left:
        return f"{found.words_left} corrections are still in the database or in a job."
    if found.known.low <= 0:
        return "Nothing can be said: the adapter that learnt with them does not know them either."
    if found.left.low > 0:
        return "The next adapter still knows the person."
    return "The next adapter knows no more of the person than one that never saw them."


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What is left of a forgotten person.")
    parser.add_argument("--json", action="store_true", help="print one object as the last line")
    parser.add_argument("--report", action="store_true", help="add it to docs/learning.md and stop")
    parser.add_argument("--directory", type=Path, default=Path("var/membership"))
    parser.add_argument("--taste", choices=TASTES, default="human", help="of the community")
    parser.add_argument("--recipe", choices=RECIPES, default="auto")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _plan(directory: Path, options: argparse.Namespace) -> None:
    _, base = default_world()
    prompts, _ = split_prompts()
    prompts = prompts[:PROMPTS]
    pool = load_pool(Path("var/learning/pool.jsonl"), prompts, 1)
    world = World(prompts, pool)
    shown = list(world.shown(options.seed, draws=(0,)))
    rest = World([reply.prompt for reply in shown[CORRECTIONS:]], pool)
    check = Check(
        said=votes(VOTES, NOISE)(TASTES[options.taste], rest, options.seed),
        corrected=corrections(shown[:CORRECTIONS], options.seed),
        runs=RUNS,
        seed=options.seed,
        base=(base.name, base.sha256, str(base.path.resolve())),
        recipe=options.recipe,
    )
    plan_check(directory, check)


if __name__ == "__main__":
    sys.exit(main())
