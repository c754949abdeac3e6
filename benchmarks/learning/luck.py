"""`python -m benchmarks.learning.luck`: how often the gate finds something in votes.

The communities of an arm and the same thumbs dealt out anew, many seeds, nothing trained: `luck`
and `accuracy` of a run of ranked replies rest on the votes alone, and where they refuse, so does
the gate, whatever an adapter trained on such votes would be like. What members voted on is read
once for all communities. Figures are kept as they are found, so a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
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
from trainer import figures
from trainer.best_of_n import Floats, Teacher, foretold
from trainer.draws import Prompt
from trainer.luck import chance_of_luck
from trainer.plan import plan_training
from trainer.ranked import Option
from trainer.reward import Opinions, contrary_people

HONEST, SHUFFLED = "votes-240", "shuffled-240"
KEPT = "luck.json"

Found = dict[str, tuple[float, float]]
"""p and accuracy by taste, arm and seed, as a cell is named."""


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


def measure(seeds: Sequence[int], directory: Path) -> Found:
    """Return both figures of every taste, arm and seed; they are kept in the directory."""
    settings, _ = default_world()
    prompts, _ = split_prompts()
    world = World(prompts, load_pool(directory / "pool.jsonl", prompts, 2))
    kept = directory / KEPT
    found: Found = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    reader = Reader(default_teacher().drawer)
    for seed in seeds:
        for taste in TASTES:
            for arm in (HONEST, SHUFFLED):
                name = f"{taste}-{arm}-s{seed}"
                if name not in found:
                    votes, learnt = votes_of(arm, taste, world, seed, settings)
                    p, accuracy = found[name] = _asked(reader.opinions(votes, _quiet), learnt, seed)
                    write_atomic(kept, json.dumps(found, indent=1))
                    told = f"{name}: p {p:.4f}, accuracy {accuracy:.3f}"
                    print(told, file=sys.stderr, flush=True)
    return found


def _asked(said: Opinions, learnt: int, seed: int) -> tuple[float, float]:
    """Return what the gate asks of votes, of which the first `learnt` are learnt from."""
    trained = said.first(learnt, 0)
    judged = foretold(trained.without(contrary_people(trained)), seed)
    return chance_of_luck(said, seed), figures.accuracy(judged)


def votes_of(
    arm: str, taste: str, world: World, seed: int, settings: Settings
) -> tuple[list[VoteExample], int]:
    """Return what a run would learn from and hold out, and how many of it come first to learn."""
    plan = plan_training(feedback_rows(ARMS[arm](TASTES[taste], world, seed)), settings, "auto")
    learnt, held_out = (
        [one for one in part if isinstance(one, VoteExample)]
        for part in (plan.train, plan.held_out)
    )
    return [*learnt, *held_out], len(learnt)


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


def table(found: Found, seeds: Sequence[int]) -> list[str]:
    """How many communities pass by taste, and by each check of all, with the smallest p."""
    bounds = GateSettings()
    body = []
    for arm in (HONEST, SHUFFLED):
        of = {taste: [found[f"{taste}-{arm}-s{seed}"] for seed in seeds] for taste in TASTES}
        told = [one for asked in of.values() for one in asked]
        lucky = [p <= bounds.max_p_value for p, _ in told]
        right = [accuracy >= bounds.min_accuracy for _, accuracy in told]
        both = [all(checks) for checks in zip(lucky, right, strict=True)]
        by_taste = (sum(both[n : n + len(seeds)]) for n in range(0, len(both), len(seeds)))
        low, high = wilson(sum(both), len(both))
        together = f"{sum(both)} of {len(both)} ({low:.2f} to {high:.2f})"
        smallest = f"{min(p for p, _ in told):.4f}"
        body.append(
            [arm, *map(str, by_taste), together, str(sum(lucky)), str(sum(right)), smallest]
        )
    head = ("passes both", *TASTES, "together (95 %)", "luck", "accuracy", "smallest p")
    return aligned(head, body)


if __name__ == "__main__":
    main()
