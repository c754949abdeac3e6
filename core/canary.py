"""A canary's rules: which conversations it answers, whose votes count, and what they decide.

Invariant: one conversation counts once, by its first thumb, and a match of the arena by its first
choice, since the draw was made once; of one person so many count, and nothing is decided that the
votes of all others would not decide alone. A pure function of the votes: asked again it says the
same, so nothing need be kept but the votes.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from core.eprocess import (
    MULTIPLES,
    EProcess,
    Habits,
    choice_factor,
    log_together,
    log_without_the_strongest,
    thumb_factor,
)

Decision = Literal["promote", "roll back", "go on"]


@dataclass(frozen=True, slots=True)
class CanaryRules:
    """`share`: of new conversations, in (0, 1). `min_gain`: the smallest difference of like-rates
    looked for. `wrong_promotion`: how often a version that is no better may be promoted,
    `wrong_rollback`: one that is no worse taken back. `person_votes`: how many of one person count.
    """

    share: float
    min_gain: float
    wrong_promotion: float
    wrong_rollback: float
    person_votes: int


@dataclass(frozen=True, slots=True)
class Thumb:
    """A thumb on a reply of a conversation that was drawn; `canary` says for which side."""

    person: str
    conversation: str
    canary: bool
    liked: bool


@dataclass(frozen=True, slots=True)
class BlindChoice:
    """A choice in a match of the arena that was no tie; `won` says that it fell on the canary."""

    person: str
    match: str
    won: bool


@dataclass(frozen=True, slots=True)
class Sides:
    """What was counted: likes and dislikes of both versions, blind choices won and lost."""

    canary_up: int = 0
    canary_down: int = 0
    live_up: int = 0
    live_down: int = 0
    won: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where a trial stands. `better` and `worse` are e-values without the strongest person's votes
    where these leave less; `needed_better` and `needed_worse` what each has to reach.
    """

    sides: Sides
    thumbs: int
    people: int
    better: float
    worse: float
    needed_better: float
    needed_worse: float
    decision: Decision


def draws_canary(trial_id: str, conversation: str, share: float) -> bool:
    """Say whether a conversation is drawn for the canary; the same at every asking.

    The first 64 bits of SHA-256 over both names, read as a number in [0, 1), lie below `share`.
    """
    digest = hashlib.sha256(f"{trial_id}/{conversation}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share


class CanaryTest:
    """The votes of one trial in the order they were given, and what they say at any moment."""

    def __init__(self, rules: CanaryRules) -> None:
        self._rules = rules
        gains = [rules.min_gain * multiple for multiple in MULTIPLES]
        self._better = (EProcess(gains), EProcess(gains))
        self._worse = tuple(EProcess([-gain for gain in gains]) for _ in range(2))
        self._habits = Habits()
        self._seen: set[str] = set()
        self._of: Counter[tuple[str, str]] = Counter()
        self._sides: Counter[str] = Counter()

    def thumb(self, thumb: Thumb) -> bool:
        """Take a thumb; False if it does not count: not the conversation's first, or one too many
        of the person's.
        """
        if not self._counts("thumb", thumb.person, thumb.conversation):
            return False
        expected = self._habits.expected(thumb.person)
        for process in (self._better[0], self._worse[0]):
            factors = [
                thumb_factor(
                    canary=thumb.canary,
                    liked=thumb.liked,
                    share=self._rules.share,
                    expected=expected,
                    gain=gain,
                )
                for gain in process.gains
            ]
            process.multiply(thumb.person, factors)
        self._habits.add(thumb.person, liked=thumb.liked)
        side = "canary" if thumb.canary else "live"
        self._sides[f"{side}_{'up' if thumb.liked else 'down'}"] += 1
        return True

    def choice(self, choice: BlindChoice) -> bool:
        """Take a blind choice; False if it does not count, as with thumbs."""
        if not self._counts("choice", choice.person, choice.match):
            return False
        for process in (self._better[1], self._worse[1]):
            factors = [choice_factor(won=choice.won, gain=gain) for gain in process.gains]
            process.multiply(choice.person, factors)
        self._sides["won" if choice.won else "lost"] += 1
        return True

    @property
    def decision(self) -> Decision:
        """What the votes so far decide."""
        rules = self._rules
        if _reaches(self._better, rules.wrong_promotion):
            return "promote"
        return "roll back" if _reaches(self._worse, rules.wrong_rollback) else "go on"

    @property
    def evidence(self) -> Evidence:
        """Where the trial stands."""
        sides = Sides(**self._sides)
        return Evidence(
            sides=sides,
            thumbs=sides.canary_up + sides.canary_down + sides.live_up + sides.live_down,
            people=len(self._better[0].people | self._better[1].people),
            better=_value(self._better),
            worse=_value(self._worse),
            needed_better=1 / self._rules.wrong_promotion,
            needed_worse=1 / self._rules.wrong_rollback,
            decision=self.decision,
        )

    def _counts(self, kind: str, person: str, unit: str) -> bool:
        if unit in self._seen or self._of[kind, person] >= self._rules.person_votes:
            return False
        self._seen.add(unit)
        self._of[kind, person] += 1
        return True


def weigh(thumbs: Iterable[Thumb], choices: Iterable[BlindChoice], rules: CanaryRules) -> Evidence:
    """Return where a trial stands after these votes, each kind in the order it was given."""
    test = CanaryTest(rules)
    for thumb in thumbs:
        test.thumb(thumb)
    for choice in choices:
        test.choice(choice)
    return test.evidence


def _reaches(processes: tuple[EProcess, ...], error: float) -> bool:
    """Say whether the evidence does, and would without any one person."""
    bound = math.log(1 / error)
    together = log_together(processes)  # asked first: the other costs a pass over the people
    return together >= bound and log_without_the_strongest(processes) >= bound


def _value(processes: tuple[EProcess, ...]) -> float:
    return math.exp(min(log_together(processes), log_without_the_strongest(processes), 100.0))
