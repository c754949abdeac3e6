"""E-values: hand-derived factors, fair under every null, and nobody's votes alone decide."""

from __future__ import annotations

import math
from itertools import product

import pytest

from core.eprocess import (
    EProcess,
    Habits,
    choice_factor,
    log_together,
    log_without_the_strongest,
    thumb_factor,
)


def factor(*, canary: bool, liked: bool, gain: float = 0.2) -> float:
    """The factor where half is drawn and 0.6 is expected."""
    return thumb_factor(canary=canary, liked=liked, share=0.5, expected=0.6, gain=gain)


def test_a_factor_is_the_ratio_of_two_likelihoods() -> None:
    """Rates 0.7 and 0.5 against 0.6 for both: 0.7/0.6, 0.3/0.4, 0.5/0.6 and 0.5/0.4."""
    assert factor(canary=True, liked=True) == pytest.approx(0.7 / 0.6)
    assert factor(canary=True, liked=False) == pytest.approx(0.3 / 0.4)
    assert factor(canary=False, liked=True) == pytest.approx(0.5 / 0.6)
    assert factor(canary=False, liked=False) == pytest.approx(0.5 / 0.4)


def test_a_bet_on_worse_is_the_same_with_the_sides_changed() -> None:
    """At half each, betting on a loss of 0.2 pays for the canary what a gain pays for the other."""
    for liked in (True, False):
        assert factor(canary=True, liked=liked, gain=-0.2) == factor(canary=False, liked=liked)


def test_a_share_weighs_the_rarer_side_more() -> None:
    """With a fifth drawn, g 0.2 and m 0.5 the rates are 0.66 and 0.46: a like there is 1.32."""
    rare = thumb_factor(canary=True, liked=True, share=0.2, expected=0.5, gain=0.2)
    common = thumb_factor(canary=False, liked=True, share=0.2, expected=0.5, gain=0.2)
    assert (rare, common) == (pytest.approx(0.66 / 0.5), pytest.approx(0.46 / 0.5))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("gain", [-0.9, -0.1, 0.1, 0.9])
def test_over_the_draw_the_mean_is_one(share: float, gain: float) -> None:
    """Whatever the thumb is and whatever was expected: that is what makes the test fair."""
    for expected, liked in product((0.05, 0.5, 0.97), (True, False)):
        drawn, left = (
            thumb_factor(canary=side, liked=liked, share=share, expected=expected, gain=gain)
            for side in (True, False)
        )
        assert share * drawn + (1 - share) * left == pytest.approx(1)
        assert min(drawn, left) >= 0.1 - 1e-9


def test_a_canary_that_is_worse_loses_by_a_bet_on_better() -> None:
    """Rates 0.4 and 0.6 where 0.5 is expected: (0.4·1.2 + 0.6·0.8 + 0.6·0.8 + 0.4·1.2)/2 = 0.96."""
    mean = 0.0
    for canary, rate in ((True, 0.4), (False, 0.6)):
        for liked, chance in ((True, rate), (False, 1 - rate)):
            e = thumb_factor(canary=canary, liked=liked, share=0.5, expected=0.5, gain=0.2)
            mean += 0.5 * chance * e
    assert mean == pytest.approx(0.96)


def test_a_blind_choice_doubles_its_gain() -> None:
    """Betting on 0.6 against 1/2 pays 1.2 or 0.8; a bet is never everything."""
    assert choice_factor(won=True, gain=0.1) == pytest.approx(1.2)
    assert choice_factor(won=False, gain=0.1) == pytest.approx(0.8)
    assert choice_factor(won=False, gain=2.0) == pytest.approx(0.1)


def test_gains_are_averaged_not_added() -> None:
    """Two bets that came to 4 and 1 are 2.5; without a vote it is 1."""
    process = EProcess([0.1, 0.2])
    assert process.log == 0
    process.multiply("ada", [2.0, 1.0])
    process.multiply("bob", [2.0, 1.0])
    assert process.log == pytest.approx(math.log(2.5))
    assert process.log_without("bob") == pytest.approx(math.log(1.5))
    assert process.log_without("nobody") == process.log


def test_the_strongest_person_can_be_left_out() -> None:
    """3·2 of two people over two kinds of votes: without the stronger one 2 is left."""
    thumbs, choices = EProcess([0.1]), EProcess([0.1])
    assert log_without_the_strongest([thumbs, choices]) == 0
    thumbs.multiply("ada", [2.0])
    choices.multiply("ada", [1.5])
    thumbs.multiply("bob", [2.0])
    assert log_together([thumbs, choices]) == pytest.approx(math.log(6))
    assert log_without_the_strongest([thumbs, choices]) == pytest.approx(math.log(2))


def test_what_is_expected_follows_everybody_and_the_person() -> None:
    """A half at first; after 3 likes of ada 4/5 for bob, and (3 + 4·0.8)/(3 + 4) for her."""
    habits = Habits()
    assert habits.expected("ada") == 0.5
    for _ in range(3):
        habits.add("ada", liked=True)
    assert habits.expected("bob") == pytest.approx(0.8)
    assert habits.expected("ada") == pytest.approx(6.2 / 7)
