"""How often a canary's votes decide wrongly, and how many it takes: simulated with the bot's test.

`python -m benchmarks.canary [--json] [--quick]`; one core, under two minutes. Every trial is looked
at after each vote. The people are uneven on purpose: they differ in how much they say, in how
easily they are pleased, and conversations differ besides; none of it is known to the test.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import accumulate
from typing import Literal

from benchmarks.results import aligned
from core.canary import BlindChoice, CanaryTest, Thumb
from core.intervals import wilson
from core.sections import CanarySettings

PEOPLE = 40
ACTIVITY = 1.0
"""Standard deviation of the logarithm of how much a person says."""
LENIENCY = 1.0
"""Standard deviation, in logits, of how easily a person is pleased."""
TOPIC = 1.0
"""Standard deviation, in logits, of how easily a conversation pleases."""
MORE_THUMBS = 0.5
"""The chance that after a thumb the same conversation gets one more."""
LONGEST = 3
"""A trial's time is over after so many times its most thumbs of conversations."""
ARENA = 0.25
"""Blind choices for each conversation with a thumb, where there are any."""
TRIALS, EQUAL_TRIALS = 300, 600
"""Where the versions are equal, errors are rare and take more trials to be measured."""
QUICK = 10
"""A quick run has one trial in so many."""
End = Literal["promote", "roll back", "undecided"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is true: like-rates, the canary's share, and what else there is.

    `arena`: blind choices come in besides. `eager`: how many times as often a conversation with the
    canary gets a thumb at all.
    """

    live: float
    canary: float
    share: float = 0.5
    arena: bool = False
    eager: float = 1.0

    @property
    def trials(self) -> int:
        """How many trials tell enough of it."""
        return EQUAL_TRIALS if self.live == self.canary else TRIALS


@dataclass(frozen=True, slots=True)
class Found:
    """How the trials of a scenario ended; thumbs are those that counted."""

    scenario: Scenario
    trials: int
    promoted: int
    rolled_back: int
    thumbs_median: float | None
    thumbs_p90: float | None


@dataclass(frozen=True, slots=True)
class Community:
    """People of one trial: how much each says, summed up, and how easily each is pleased, in
    logits.
    """

    activity: tuple[float, ...]
    leniency: tuple[float, ...]


PAIRS = (
    (0.5, 0.5),
    (0.5, 0.6),
    (0.5, 0.7),
    (0.5, 0.8),
    (0.5, 0.4),
    (0.5, 0.3),
    (0.2, 0.2),
    (0.8, 0.8),
)
SCENARIOS = (
    *(Scenario(live, canary) for live, canary in PAIRS),
    *(Scenario(live, canary, arena=True) for live, canary in PAIRS[:6]),
    *(Scenario(live, canary, share=0.2) for live, canary in PAIRS[:6] if canary != 0.6),
    Scenario(0.5, 0.5, eager=1.5),
    Scenario(0.8, 0.8, eager=1.5),
)


def make_community(rng: random.Random) -> Community:
    """Draw the people of one trial."""
    return Community(
        tuple(accumulate(math.exp(rng.gauss(0, ACTIVITY)) for _ in range(PEOPLE))),
        tuple(rng.gauss(0, LENIENCY) for _ in range(PEOPLE)),
    )


@cache
def intercept(rate: float) -> float:
    """Return the logit at which people and topics of our spread like `rate` of replies."""
    spread = math.hypot(LENIENCY, TOPIC)
    points = [spread * statistics.NormalDist().inv_cdf((n + 0.5) / 400) for n in range(400)]
    low, high = -10.0, 10.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        if statistics.fmean(_logistic(middle + point) for point in points) < rate:
            low = middle
        else:
            high = middle
    return low


def run_trial(scenario: Scenario, settings: CanarySettings, rng: random.Random) -> tuple[End, int]:
    """Let one trial go on until it is decided or the thumbs run out; return its end and thumbs."""
    test = CanaryTest(settings.rules(scenario.share))
    people = make_community(rng)
    counted = 0
    for number in range(LONGEST * settings.max_votes):
        if counted >= settings.max_votes:
            break
        canary = rng.random() < scenario.share
        if rng.random() > (scenario.eager if canary else 1.0) / max(1.0, scenario.eager):
            continue
        for thumb in _conversation(scenario, people, canary, number, rng):
            if test.thumb(thumb):
                counted += 1
                if (decision := test.decision) != "go on":
                    return decision, counted
        if scenario.arena and rng.random() < ARENA:
            test.choice(_choice(scenario, people, number, rng))
            if (decision := test.decision) != "go on":
                return decision, counted
    return "undecided", counted


def measure(scenario: Scenario, settings: CanarySettings, trials: int) -> Found:
    """Run a scenario's trials, each with random numbers of its own."""
    seed = json.dumps(asdict(scenario))
    ends = [run_trial(scenario, settings, random.Random(f"{seed}{n}")) for n in range(trials)]
    decided = sorted(thumbs for end, thumbs in ends if end != "undecided")
    return Found(
        scenario=scenario,
        trials=trials,
        promoted=sum(end == "promote" for end, _ in ends),
        rolled_back=sum(end == "roll back" for end, _ in ends),
        thumbs_median=statistics.median(decided) if decided else None,
        thumbs_p90=decided[int(0.9 * len(decided))] if decided else None,
    )


def table(found: Sequence[Found]) -> list[str]:
    """Return the results as a markdown table."""
    head = (
        "live",
        "canary",
        "share",
        "besides",
        "trials",
        "promoted",
        "rolled back",
        "thumbs: median, 90 %",
    )
    return aligned(head, [_cells(one) for one in found])


def main() -> None:
    """Simulate every scenario and print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one object as the last line")
    parser.add_argument("--quick", action="store_true", help="fewer trials")
    options = parser.parse_args()
    settings, started = CanarySettings(), time.perf_counter()
    fewer = QUICK if options.quick else 1
    found = [measure(one, settings, one.trials // fewer) for one in SCENARIOS]
    print("\n".join(table(found)))
    seconds = time.perf_counter() - started
    print(
        f"\n{settings.max_votes} thumbs at most; {seconds:.0f} s, {time.process_time():.0f} s busy"
    )
    if options.json:
        print(json.dumps({"results": [asdict(one) for one in found], "seconds": seconds}))


def _conversation(
    scenario: Scenario, people: Community, canary: bool, number: int, rng: random.Random
) -> list[Thumb]:
    """Return the thumbs of one conversation: each by anybody, on replies alike in their topic."""
    level = intercept(scenario.canary if canary else scenario.live) + rng.gauss(0, TOPIC)
    thumbs: list[Thumb] = []
    while not thumbs or rng.random() < MORE_THUMBS:
        (who,) = rng.choices(range(PEOPLE), cum_weights=people.activity)
        liked = rng.random() < _logistic(level + people.leniency[who])
        thumbs.append(Thumb(str(who), str(number), canary, liked))
    return thumbs


def _choice(scenario: Scenario, people: Community, number: int, rng: random.Random) -> BlindChoice:
    """Return a choice between two replies of which just one is liked; others are ties."""
    better = scenario.canary * (1 - scenario.live)
    worse = scenario.live * (1 - scenario.canary)
    (who,) = rng.choices(range(PEOPLE), cum_weights=people.activity)
    return BlindChoice(str(who), f"m{number}", rng.random() < better / (better + worse))


def _cells(found: Found) -> list[str]:
    scenario = found.scenario
    eager = f"{scenario.eager:g} times the thumbs" if scenario.eager != 1 else ""
    thumbs = "-"
    if found.thumbs_median is not None:
        thumbs = f"{found.thumbs_median:.0f}, {found.thumbs_p90:.0f}"
    return [
        f"{scenario.live:.2f}",
        f"{scenario.canary:.2f}",
        f"{scenario.share:.1f}",
        "arena" if scenario.arena else eager,
        str(found.trials),
        _share(found.promoted, found.trials),
        _share(found.rolled_back, found.trials),
        thumbs,
    ]


def _share(count: int, trials: int) -> str:
    low, high = wilson(count, trials)
    return f"{count / trials:.1%} ({low:.1%} to {high:.1%})"


def _logistic(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


if __name__ == "__main__":
    main()
