"""How fast a run trains beside TRL's own trainers, in how much memory, and if it learns alike.

Each arm is a process of its own (benchmarks.training_arm): the same examples from real talk, our
LoRA shape, the same learning rate, the same number of steps of eight. The peers are
TRL's trainers with TRL's defaults, and both arms take the same loss. (Our recipe for votes is
quicker still: its loss needs no KL pass.) The margin is what should have grown on examples nobody
trained on; ours must lie within the 95 % interval of the peer's.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from benchmarks.common import arguments, median
from benchmarks.results import Row, append, print_table

ROUNDS, STEPS = 5, 2
QUICK_ROUNDS, QUICK_STEPS = 1, 2
THREADS = 2
METHODS = {"kto": 3.0, "dpo": 2.0, "sft": 2.0}
"""Each method with how many times the peer's speed is wanted."""
_DRAWS = 2000


@dataclass(frozen=True, slots=True)
class Arm:
    """What one arm did, round by round."""

    examples_per_s: list[float]
    peak_mib: list[float]
    margins: list[float]

    @property
    def margin(self) -> float:
        """Return the mean margin on the held-out examples, in nats (SFT too: of a whole reply)."""
        return fmean(self.margins)

    def margin_interval(self) -> tuple[float, float]:
        """Return the 95 % percentile bootstrap interval over the held-out examples."""
        chance = random.Random(0)
        count = len(self.margins)
        means = sorted(fmean(chance.choices(self.margins, k=count)) for _ in range(_DRAWS))
        return means[int(0.025 * _DRAWS)], means[int(0.975 * _DRAWS)]


def measure(rounds: int, steps: int) -> dict[str, dict[str, Arm]]:
    """Run both arms of every method in turn, `rounds` times."""
    return {method: _measure_method(method, rounds, steps) for method in METHODS}


def _measure_method(method: str, rounds: int, steps: int) -> dict[str, Arm]:
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "stock": []}
    for number in range(rounds):
        for arm, done in runs.items():
            print(f"{method}, {arm}, round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            done.append(_run_arm(method, arm, steps))
    return {
        arm: Arm(
            [run["examples_per_s"] for run in done],
            [run["peak_mib"] for run in done],
            done[0]["margins"],
        )
        for arm, done in runs.items()
    }


def _run_arm(method: str, arm: str, steps: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.training_arm", method, arm, str(steps)],
        env={**os.environ, "OMP_NUM_THREADS": str(THREADS)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{method}, {arm}: {done.stderr.strip().splitlines()[-1:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def compare(arms: dict[str, Arm], wanted: float, method: str) -> tuple[list[Row], float, float]:
    """Return the rows of one method, the ratio of speeds and that of the peak memory."""
    ours, stock = arms["ours"], arms["stock"]
    pairs = zip(ours.examples_per_s, stock.examples_per_s, strict=True)
    speed = median([a / b for a, b in pairs])
    memory = median([a / b for a, b in zip(ours.peak_mib, stock.peak_mib, strict=True)])
    low, high = stock.margin_interval()
    rows = [
        Row(
            f"{method}: examples a second",
            median(ours.examples_per_s),
            median(stock.examples_per_s),
            speed,
            at_least=wanted,
        ),
        Row(
            f"{method}: peak memory, MiB",
            median(ours.peak_mib),
            median(stock.peak_mib),
            memory,
            at_most=1.0,
        ),
        Row(
            f"{method}: held-out margin, nats (peer's interval {low:.2f} to {high:.2f})",
            ours.margin,
            stock.margin,
        ),
    ]
    return rows, speed, memory


def _report(options: argparse.Namespace, found: dict[str, dict[str, Arm]]) -> None:
    rows: list[Row] = []
    ratios: dict[str, float] = {}
    figures: dict[str, Any] = {}
    for method, arms in found.items():
        compared, speed, memory = compare(arms, METHODS[method], method)
        rows += compared
        ratios[f"train_vs_trl_{method}"] = speed
        ratios[f"train_memory_vs_trl_{method}"] = memory
        low, high = arms["stock"].margin_interval()
        figures[f"{method}_margin_within"] = low <= arms["ours"].margin <= high
        for row in compared:
            figures[row.what] = {"ours": row.ours, "peer": row.peer}
    print_table(rows)
    if options.record:
        append("Training beside TRL's trainers", rows)
    if options.json:
        print(json.dumps({**figures, "ratios": ratios}))


def main() -> None:
    """Run and print."""
    options = arguments("A training run's speed and memory beside TRL's own trainers.")
    rounds, steps = (QUICK_ROUNDS, QUICK_STEPS) if options.quick else (ROUNDS, STEPS)
    _report(options, measure(rounds, steps))


if __name__ == "__main__":
    main()
