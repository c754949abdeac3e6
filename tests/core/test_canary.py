"""A canary's rules: what counts, what decides, and that luck and one person do not."""

from __future__ import annotations

import random

import pytest

from core.canary import (
    BlindChoice,
    CanaryRules,
    CanaryTest,
    Evidence,
    Sides,
    Thumb,
    draws_canary,
    weigh,
)

RULES = CanaryRules(
    share=0.5, min_gain=0.1, wrong_promotion=0.05, wrong_rollback=0.1, person_votes=20
)


def thumbs(count: int, people: int, *, canary: float, live: float, start: int = 0) -> list[Thumb]:
    """Thumbs of as many people in turn, the sides in turn, liked in these exact shares."""
    found, due = [], {True: 0.0, False: 0.0}
    for number in range(start, start + count):
        side = number % 2 == 0
        due[side] += canary if side else live
        liked = due[side] >= 1 - 1e-9
        due[side] -= liked
        found.append(Thumb(f"p{number % people}", f"c{number}", side, liked))
    return found


def decided(canary: float, live: float, *, count: int = 300, people: int = 15) -> Evidence:
    """Where so many thumbs leave a trial."""
    return weigh(thumbs(count, people, canary=canary, live=live), [], RULES)


def test_a_clear_difference_decides_either_way() -> None:
    """0.8 against 0.4 promotes, 0.4 against 0.8 rolls back, equal rates go on."""
    assert decided(0.8, 0.4).decision == "promote"
    assert decided(0.4, 0.8).decision == "roll back"
    assert decided(0.5, 0.5).decision == "go on"


def test_without_votes_nothing_is_known() -> None:
    """The e-values begin at 1, and what they have to reach is one over the error."""
    empty = weigh([], [], RULES)
    assert (empty.better, empty.worse, empty.decision) == (1, 1, "go on")
    assert (empty.needed_better, empty.needed_worse) == (pytest.approx(20), pytest.approx(10))


def test_a_conversation_counts_once() -> None:
    """Its first thumb counts; the next ones in it, by whomever, do not."""
    test = CanaryTest(RULES)
    assert test.thumb(Thumb("ada", "c1", canary=True, liked=True))
    assert not test.thumb(Thumb("ada", "c1", canary=True, liked=True))
    assert not test.thumb(Thumb("bob", "c1", canary=True, liked=False))
    assert test.choice(BlindChoice("ada", "m1", won=True))
    assert not test.choice(BlindChoice("bob", "m1", won=True))
    assert test.evidence.sides == Sides(canary_up=1, won=1)


def test_one_person_counts_so_often() -> None:
    """The 21st conversation of a person is left to others, who may still count in it."""
    test = CanaryTest(RULES)
    assert all(test.thumb(Thumb("ada", f"c{n}", canary=True, liked=True)) for n in range(20))
    assert not test.thumb(Thumb("ada", "c20", canary=True, liked=True))
    assert test.thumb(Thumb("bob", "c20", canary=True, liked=True))


def test_one_person_decides_nothing() -> None:
    """Whatever one person votes, thumbs and choices, the trial goes on."""
    rules = CanaryRules(0.5, 0.1, 0.05, 0.1, person_votes=1000)
    alone = thumbs(300, 1, canary=1.0, live=0.0)
    chosen = [BlindChoice("p0", f"m{n}", won=True) for n in range(300)]
    assert weigh(alone, chosen, rules).decision == "go on"
    assert weigh(alone, chosen, rules).better == pytest.approx(1)


def test_blind_choices_are_second_evidence() -> None:
    """Thumbs that do not suffice do with 30 of 40 blind choices; those alone may decide too."""
    few = thumbs(60, 15, canary=0.6, live=0.4)
    chosen = [BlindChoice(f"p{n % 15}", f"m{n}", won=n % 4 > 0) for n in range(40)]
    assert weigh(few, [], RULES).decision == "go on"
    assert weigh(few, chosen, RULES).decision == "promote"
    assert weigh(few, chosen, RULES).better > weigh([], chosen, RULES).better > 1


def test_the_same_votes_say_the_same() -> None:
    """Taken at once or one by one, with looks between, the evidence is one."""
    votes = thumbs(80, 7, canary=0.7, live=0.5)
    test = CanaryTest(RULES)
    for vote in votes:
        test.thumb(vote)
        assert test.decision in ("go on", "promote")
    assert test.evidence == weigh(votes, [], RULES)


def test_luck_seldom_decides_though_every_vote_is_looked_at() -> None:
    """100 trials of coins: at most 11 of 100 are promoted by luck (5 % allowed, 99 % quantile)."""
    wrong = 0
    for seed in range(100):
        rng, test = random.Random(seed), CanaryTest(RULES)
        for number in range(150):
            side, liked = rng.random() < 0.5, rng.random() < 0.5
            test.thumb(Thumb(f"p{number % 15}", str(number), side, liked))
            if test.decision != "go on":
                wrong += test.decision == "promote"
                break
    assert wrong <= 11


def test_the_draw_is_stable_and_has_its_share() -> None:
    """The same conversation is drawn the same; of 2000 a fifth, within four standard errors."""
    drawn = [draws_canary("t_1", f"c_{n}", 0.2) for n in range(2000)]
    assert drawn == [draws_canary("t_1", f"c_{n}", 0.2) for n in range(2000)]
    assert sum(drawn) == pytest.approx(400, abs=4 * (2000 * 0.2 * 0.8) ** 0.5)
    assert drawn != [draws_canary("t_2", f"c_{n}", 0.2) for n in range(2000)]
    assert not any(draws_canary("t_1", f"c_{n}", 0.0) for n in range(100))
