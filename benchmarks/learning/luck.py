"""`python -m benchmarks.learning.luck`: how often the gate's `luck` finds something in votes.

The communities of an arm and the same thumbs dealt out anew, many seeds, nothing trained: where
`luck` refuses, so does the gate, whatever an adapter trained on such votes would be like. What
members voted on is read once for all communities. p-values are kept as they are found, so a run
that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.common import default_world
from benchmarks.learning.arms import ARMS, World
from benchmarks.learning.community import feedback_rows
from benchmarks.learning.human import default_teacher
from benchmarks.learning.pool import load_pool
from benchmarks.learning.prompts import split_prompts
from benchmarks.learning.tastes import TASTES
from benchmarks.results import aligned
from core.files import write_atomic
from core.intervals import wilson
from core.jobs import VoteExample
from core.sections import GateSettings
from core.settings import Settings
from trainer.best_of_n import Floats, Teacher
from trainer.draws import Prompt
from trainer.luck import chance_of_luck
from trainer.plan import plan_training
from trainer.ranked import Option

HONEST, SHUFFLED = "votes-240", "shuffled-240"
KEPT = "luck.json"

Chances = dict[str, float]
"""p by taste, arm and seed, as a cell is named."""


def _quiet(done: float) -> None:
    """Tell nothing: a community is read in seconds."""


def main() -> None:
    """Measure what is missing and print a table."""
    parser = argparse.ArgumentParser(description="How often luck is told from votes.")
    parser.add_argument("--seeds", type=int, default=10, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--directory", type=Path, default=Path("var/learning"))
    parser.add_argument("--json", action="store_true", help="print one object as the last line")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    found = measure(seeds, options.directory)
    print("\n".join(table(found, seeds)))
    if options.json:
        print(json.dumps(found))


def measure(seeds: Sequence[int], directory: Path) -> Chances:
    """Return p of every taste, arm and seed; what is found is kept in the directory."""
    settings, _ = default_world()
    prompts, _ = split_prompts()
    world = World(prompts, load_pool(directory / "pool.jsonl", prompts, 2))
    kept = directory / KEPT
    found: Chances = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    reader = Reader(default_teacher().drawer)
    for seed in seeds:
        for taste in TASTES:
            for arm in (HONEST, SHUFFLED):
                name = f"{taste}-{arm}-s{seed}"
                if name not in found:
                    votes = votes_of(arm, taste, world, seed, settings)
                    found[name] = chance_of_luck(reader.opinions(votes, _quiet), seed)
                    write_atomic(kept, json.dumps(found, indent=1))
                    print(f"{name}: p {found[name]:.4f}", file=sys.stderr, flush=True)
    return found


def votes_of(
    arm: str, taste: str, world: World, seed: int, settings: Settings
) -> list[VoteExample]:
    """Return what a run would learn from and hold out."""
    plan = plan_training(feedback_rows(ARMS[arm](TASTES[taste], world, seed)), settings, "auto")
    return [one for one in [*plan.train, *plan.held_out] if isinstance(one, VoteExample)]


@dataclass
class Reader(Teacher):
    """A teacher that reads each reply once, whoever voted on it."""

    known: dict[tuple[str, Option], Floats] = field(default_factory=dict)

    def features(
        self, rows: Sequence[tuple[Prompt, Option]], on_progress: Callable[[float], None] = _quiet
    ) -> Floats:
        """Return the features of replies to prompts.  # (N, D)"""
        keys = [(prompt[-1].content, option) for prompt, option in rows]
        missing = {key: row for key, row in zip(keys, rows, strict=True) if key not in self.known}
        if missing:
            found = super().features(list(missing.values()), on_progress)
            self.known |= zip(missing, found, strict=True)
        return np.array([self.known[key] for key in keys])


def table(found: Mapping[str, float], seeds: Sequence[int]) -> list[str]:
    """How many communities pass by taste, and together with the interval and the smallest p."""
    bound = GateSettings().max_p_value
    body = []
    for arm in (HONEST, SHUFFLED):
        of = {taste: [found[f"{taste}-{arm}-s{seed}"] for seed in seeds] for taste in TASTES}
        passed = {taste: sum(p <= bound for p in chances) for taste, chances in of.items()}
        count, total = len(TASTES) * len(seeds), sum(passed.values())
        low, high = wilson(total, count)
        together = f"{total} of {count} ({low:.2f} to {high:.2f})"
        smallest = min(p for chances in of.values() for p in chances)
        body.append([arm, *map(str, passed.values()), together, f"{smallest:.4f}"])
    return aligned(("passes", *TASTES, "together (95 %)", "smallest p"), body)


if __name__ == "__main__":
    main()
