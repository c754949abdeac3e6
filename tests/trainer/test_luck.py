"""The test of luck: whatever is made of the votes is made of dealt out ones too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.trainer.test_reward import STATES, rows, votes
from trainer.luck import RIDGE, _foreteller, _Rows, chance_of_luck
from trainer.reward import Opinions
from trainer.style import FEATURES


def alone(features: list[float], *, are_votes: bool) -> _Rows:
    column, count = np.array(features)[:, None], len(features)
    return _Rows(
        alike=column @ column.T,
        votes=np.full(count, are_votes),
        folds=np.arange(count),
        people=np.array(["p"] * count),
    )


def test_a_pair_is_foretold_by_ridge_regression() -> None:
    """From one difference of 1 to one of 2: 2 · 1 / (1 + λ)."""
    found = _foreteller(
        alone([1.0, 2.0], are_votes=False), np.array([True, False]), np.array([False, True])
    )
    assert found == pytest.approx(np.array([[2 / (1 + RIDGE)]]))


def test_a_vote_is_foretold_around_the_mean_of_the_others() -> None:
    """Centred features of -1 and 1 and thumbs ±1/2 give the slope 1 / (2 + λ); the third reply
    lies 2 above the mean.
    """
    found = _foreteller(
        alone([4.0, 6.0, 7.0], are_votes=True),
        np.array([True, True, False]),
        np.array([False, False, True]),
    )
    assert found @ np.array([0.0, 1.0]) == pytest.approx(2 / (2 + RIDGE))
    assert found.sum() == pytest.approx(0.0)


def test_what_people_go_by_is_not_luck() -> None:
    """Votes by one count alone are foretold better than any of 200 dealings."""
    assert chance_of_luck(votes(120), seed=0, dealings=200) == pytest.approx(1 / 201)


def test_pairs_alone_can_be_told_from_luck() -> None:
    """The chosen replies have more of one count; swapped sides do not foretell it."""
    chosen, rejected = np.random.default_rng(2).normal(size=(2, 60, STATES + len(FEATURES)))
    chosen[:, STATES] += 2
    nothing = np.zeros((0, chosen.shape[1]))
    people = [f"p{n % 4}" for n in range(60)]
    said = Opinions(nothing, np.zeros(0), rows([]), chosen, rejected, rows(people))
    assert chance_of_luck(said, seed=0, dealings=200) == pytest.approx(1 / 201)


def test_one_who_votes_against_everybody_does_not_make_it_luck() -> None:
    """The thirty votes the other way round are left out, as in the reward itself."""
    assert chance_of_luck(votes(120, contrary=30), seed=0, dealings=200) < 0.01


def test_random_votes_are_luck_as_often_as_the_level_says() -> None:
    """Of 60 shuffled communities 12 are expected under 20 %, with a standard deviation of 3.1;
    people who then seem contrary are left out in the dealings too.
    """
    chance, hits = np.random.default_rng(3), 0
    for world in range(60):
        said = votes(60, seed=world)
        shuffled = replace(said, labels=chance.permutation(said.labels))
        hits += chance_of_luck(shuffled, seed=0, dealings=49) <= 0.2
    assert 3 <= hits <= 21


def test_one_kind_of_thumb_can_only_be_luck() -> None:
    """Nothing can be compared."""
    said = votes(20)
    assert chance_of_luck(replace(said, labels=np.ones(20)), seed=0) == 1.0
