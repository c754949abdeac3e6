"""Evidence that may be looked at after every vote: e-values of a new version against the old one.

An e-value is a number that is 1 or less on average where the new version is no better (or, for the
other question, no worse). A product of them that is 20 occurs at any time with probability 1/20 at
most (Ville 1939), so nobody has to say beforehand when to look. What makes the factors fair is the
draw that gave a conversation its version, not a model of the votes: people may differ, change over
time and depend on one another. Knows no database and no clock.

After Turner, Ly and Grünwald, "Generic E-variables for exact sequential k-sample tests that allow
for optional stopping" (J. Stat. Plan. Inference 230, 2024), for an arm that is drawn at random, and
Shafer, "Testing by betting" (J. R. Stat. Soc. A 184, 2021).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

MULTIPLES = (1.0, 2.0, 4.0)
"""Gains that are betted on, as multiples of the smallest one looked for: a bet on a small gain is
slow where the gain is large, and one on a large gain loses where it is small."""
BOLDEST = 0.9
"""How far a bet may go towards losing everything on one vote."""
HABIT_VOTES = 4.0
"""After so many votes of a person, their own share of likes counts as much as everybody's."""


def thumb_factor(*, canary: bool, liked: bool, share: float, expected: float, gain: float) -> float:
    """Return the e-value of one thumb for "the canary's like-rate is higher by `gain`".

    1 + g (a - s) (x - m) / (m (1 - m)): a is 1 for the canary and 0 for the live version, s the
    share of conversations drawn for the canary, x is 1 for a like, m in (0, 1) the like-rate
    expected before the vote. It is the likelihood of the thumb with rates m + (1 - s) g and m - s g
    over that with m for both. A negative gain bets on worse. Over the draw of a its mean is 1
    whatever x and m are. The gain is cut to BOLDEST times what keeps both rates within 0 and 1.
    """
    room = expected if gain < 0 else 1 - expected
    bound = min(room / (1 - share), (1 - room) / share)
    bet = math.copysign(min(abs(gain), BOLDEST * bound), gain)
    return 1 + bet * (canary - share) * (liked - expected) / (expected * (1 - expected))


def choice_factor(*, won: bool, gain: float) -> float:
    """Return the e-value of one blind choice for "the candidate wins by 1/2 + gain".

    1 + 2 g (2 y - 1), y being 1 where the candidate won: its mean is 1 where either wins as often.
    The gain is cut to BOLDEST / 2 either way.
    """
    bet = math.copysign(min(2 * abs(gain), BOLDEST), gain)
    return 1 + (bet if won else -bet)


class EProcess:
    """A product of factors for each gain betted on, averaged over the gains; all in logarithms.

    What each person added is kept apart, so that it can be taken out again.
    """

    def __init__(self, gains: Sequence[float]) -> None:
        self.gains = tuple(gains)
        self._logs = [0.0] * len(self.gains)
        self._of: dict[str, list[float]] = {}

    def multiply(self, person: str, factors: Sequence[float]) -> None:
        """Take one vote's factors, one for each gain."""
        own = self._of.setdefault(person, [0.0] * len(self.gains))
        for number, factor in enumerate(factors):
            step = math.log(factor)
            self._logs[number] += step
            own[number] += step

    @property
    def people(self) -> set[str]:
        """Who voted."""
        return set(self._of)

    def log_without(self, person: str) -> float:
        """Return the logarithm of what all others' votes come to."""
        own = self._of.get(person, [0.0] * len(self.gains))
        return _log_mean([log - part for log, part in zip(self._logs, own, strict=True)])

    @property
    def log(self) -> float:
        """The logarithm of the e-value, 0 without a vote."""
        return _log_mean(self._logs) if self._of else 0.0


class Habits:
    """The like-rate to be expected of a person's next thumb, from the thumbs before it."""

    def __init__(self) -> None:
        self._all = (0, 0)
        self._own: dict[str, tuple[int, int]] = {}

    def expected(self, person: str) -> float:
        """Return the rate in (0, 1): everybody's, (likes + 1) / (thumbs + 2), drawn towards the
        person's own.
        """
        likes, count = self._all
        common = (likes + 1) / (count + 2)
        own_likes, own_count = self._own.get(person, (0, 0))
        return (own_likes + HABIT_VOTES * common) / (own_count + HABIT_VOTES)

    def add(self, person: str, *, liked: bool) -> None:
        """Take a thumb."""
        self._all = (self._all[0] + liked, self._all[1] + 1)
        likes, count = self._own.get(person, (0, 0))
        self._own[person] = (likes + liked, count + 1)


def log_together(processes: Sequence[EProcess]) -> float:
    """Return the logarithm of the product of several e-processes on different votes."""
    return sum(process.log for process in processes)


def log_without_the_strongest(processes: Sequence[EProcess]) -> float:
    """Return the logarithm of the product without whichever person's votes leave the least.

    Asking this to reach a bound too only makes it rarer to be reached, so no error grows by it.
    Without a vote it is 0.
    """
    people = set().union(*(process.people for process in processes))
    return min(
        (sum(process.log_without(person) for process in processes) for person in people),
        default=0.0,
    )


def _log_mean(logs: Sequence[float]) -> float:
    top = max(logs)
    return top + math.log(sum(math.exp(log - top) for log in logs) / len(logs))
