"""The test of luck: whatever is made of the votes is made of dealt out ones too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.trainer.test_reward import STATES, rows, votes
from trainer.luck import RIDGE, _counted, _foreteller, _foretold, _Rows, chance_of_luck
from trainer.reward import Opinions
from trainer.style import FEATURES


def alone(features: list[float], *, are_votes: bool) -> _Rows:
    count = len(features)
    return _Rows(
        features=np.array(features)[:, None],
        votes=np.full(count, are_votes),
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


def test_what_is_foretold_of_a_row_comes_from_all_others() -> None:
    """The closed form is the regression fitted anew without each row."""
    drawn = np.random.default_rng(4)
    states, thumbs = drawn.normal(size=(12, 30)), drawn.choice([-0.5, 0.5], size=(3, 12))
    foretold = np.zeros_like(thumbs)
    for row in range(12):
        others = np.arange(12) != row
        inner = states[others] @ states[others].T + RIDGE * np.eye(11)
        across = states[row] @ states[others].T
        foretold[:, row] = thumbs[:, others] @ np.linalg.solve(inner, across)
    assert _foretold(states, thumbs) == pytest.approx((thumbs * foretold).sum(axis=1))


def test_the_count_that_goes_furthest_with_the_thumbs_is_what_counts() -> None:
    """The second goes with the first thumbs wholly, and against the second ones; a count that
    never varies goes with none.
    """
    counts = np.array([[1.0, 2.0, 0.0], [-1.0, 2.0, 0.0], [1.0, -2.0, 0.0], [-1.0, -2.0, 0.0]])
    thumbs = np.array([[0.5, 0.5, -0.5, -0.5], [-0.5, -0.5, 0.5, 0.5], [0.5, -0.5, -0.5, 0.5]])
    assert _counted(counts, thumbs) == pytest.approx([1.0, 1.0, 0.0])


def rarely_liked(*, by_count: bool) -> Opinions:
    """240 replies, one in twelve liked for one plain count or for what 600 states have in common,
    each of them weakly; and twice as many likes by mistake.
    """
    drawn = np.random.default_rng(7)
    shared, features = drawn.normal(size=240), drawn.normal(size=(240, 600 + len(FEATURES)))
    features[:, :600] += 0.3 * shared[:, None]
    told = features[:, 600] if by_count else shared
    liked = told > np.quantile(told, 11 / 12)
    liked[drawn.choice(np.flatnonzero(~liked), 2 * liked.sum(), replace=False)] = True
    nothing = np.zeros((0, features.shape[1]))
    of_votes = rows([f"p{n % 5}" for n in range(240)])
    return Opinions(features, liked.astype(float), of_votes, nothing, nothing, rows([]))


@pytest.mark.parametrize("by_count", [False, True], ids=["a tone", "a count"])
def test_what_is_rarely_liked_is_found_in_states_or_counts(by_count: bool) -> None:
    """A tone shows in no count and a count in no state: one way finds what the others do not."""
    assert chance_of_luck(rarely_liked(by_count=by_count), seed=0, dealings=400) < 0.02


def test_what_people_go_by_is_not_luck() -> None:
    """No count of 200 dealings goes as far; one of them is first by its states."""
    assert chance_of_luck(votes(120), seed=0, dealings=200) == pytest.approx(2 / 201)


def test_pairs_alone_can_be_told_from_luck() -> None:
    """The chosen replies have more of one count; swapped sides do not, but for one that is first
    by its states.
    """
    chosen, rejected = np.random.default_rng(2).normal(size=(2, 60, STATES + len(FEATURES)))
    chosen[:, STATES] += 2
    nothing = np.zeros((0, chosen.shape[1]))
    people = [f"p{n % 4}" for n in range(60)]
    said = Opinions(nothing, np.zeros(0), rows([]), chosen, rejected, rows(people))
    assert chance_of_luck(said, seed=0, dealings=200) == pytest.approx(2 / 201)


def test_one_who_votes_against_everybody_does_not_make_it_luck() -> None:
    """The thirty votes the other way round are turned, as in the reward itself."""
    assert chance_of_luck(votes(120, contrary=30), seed=0, dealings=200) < 0.01


def test_random_votes_are_luck_as_often_as_the_level_says() -> None:
    """Of 60 shuffled communities 12 are expected under 20 %, with a standard deviation of 3.1;
    people who then seem contrary are turned round in the dealings too.
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
