"""Figures against numbers derived by hand."""

from __future__ import annotations

import math

import pytest

from trainer import figures
from trainer.figures import (
    UNKNOWN,
    Judged,
    accuracy,
    auc,
    difference_bootstrap,
    distinct_share,
    judged_z,
    margin,
    permutation_p,
    person_bootstrap,
    repeated_share,
)


def votes(rewards: list[float], labels: list[bool], voters: list[str] | None = None) -> Judged:
    return Judged(
        rewards=rewards, labels=labels, voters=voters or [f"p{i}" for i in range(len(labels))]
    )


def test_auc_counts_combinations_in_the_right_order() -> None:
    """Liked 3 and 1 against disliked 2 and 0: three of four combinations are right."""
    assert auc([3.0, 1.0, 2.0, 0.0], [True, True, False, False]) == 0.75


def test_auc_counts_a_tie_as_half() -> None:
    """One liked and one disliked reply with the same reward say nothing."""
    assert auc([1.0, 1.0], [True, False]) == 0.5


def test_auc_does_not_exist_with_one_kind_of_thumb() -> None:
    """Only liked replies leave nothing to compare."""
    assert math.isnan(auc([1.0, 2.0], [True, True]))


def test_accuracy_weights_votes_and_pairs_by_their_precision_under_chance() -> None:
    """2 × 2 votes weigh 12·4/5 = 9.6, two pairs weigh 8: (9.6·0.75 + 8·0.5) / 17.6."""
    judged = Judged(
        rewards=[3.0, 1.0, 2.0, 0.0],
        labels=[True, True, False, False],
        voters=list("abcd"),
        differences=[1.0, -1.0],
        choosers=["a", "b"],
    )
    assert accuracy(judged) == pytest.approx((9.6 * 0.75 + 8 * 0.5) / 17.6)


def test_margin_is_liked_mean_minus_disliked_mean() -> None:
    """(3 + 1) / 2 - (2 + 0) / 2 = 1; with one pair of difference 6 the rows weigh 4 to 1."""
    assert margin(votes([3.0, 1.0, 2.0, 0.0], [True, True, False, False])) == 1.0
    judged = Judged([3.0, 1.0, 2.0, 0.0], [True, True, False, False], list("abcd"), [6.0], ["a"])
    assert margin(judged) == pytest.approx((4 * 1 + 1 * 6) / 5)


def test_judged_z_adds_votes_and_pairs_up() -> None:
    """Two liked above two disliked: (7 - 5) / √(4/3 · 5/4) = 1.549; four pairs of four right:
    4 / √4 = 2; together their sum over √2."""
    own = votes([4.0, 3.0, 2.0, 1.0], [True, True, False, False])
    assert judged_z(own) == pytest.approx(1.5492, abs=1e-4)
    pairs = Judged(differences=[1.0] * 4, choosers=["p"] * 4)
    assert judged_z(pairs) == 2
    both = Judged(own.rewards, own.labels, own.voters, pairs.differences, pairs.choosers)
    assert judged_z(both) == pytest.approx((1.5492 + 2) / math.sqrt(2), abs=1e-4)


def test_permutation_p_is_the_share_of_orders_as_good() -> None:
    """Of the 6 ways to place 2 likes among 4 replies one is perfect: p is near 1/6."""
    p = permutation_p(votes([4.0, 3.0, 2.0, 1.0], [True, True, False, False]), seed=0)
    assert p == pytest.approx(1 / 6, abs=0.01)


def test_permutation_p_of_pairs_is_the_binomial_tail() -> None:
    """Three pairs of three right: chance does it once in 2³."""
    judged = Judged(differences=[1.0, 2.0, 0.5], choosers=list("abc"))
    assert permutation_p(judged, seed=0) == pytest.approx(1 / 8, abs=0.01)


def test_permutation_p_is_one_where_nothing_can_be_ordered() -> None:
    """No comparison is no evidence."""
    assert permutation_p(votes([1.0, 2.0], [True, True]), seed=0) == 1.0


def test_permutation_p_of_shuffled_labels_is_uniform() -> None:
    """Rewards that follow anything but the thumbs fall below 5 % in about 5 % of worlds."""
    import numpy as np

    rng = np.random.default_rng(1)
    rewards = [float(-length) for length in rng.integers(5, 120, size=60)]
    hits = sum(
        permutation_p(
            votes(rewards, [bool(x) for x in rng.permutation(60) < 12]), seed=3, draws=400
        )
        <= 0.05
        for _ in range(200)
    )
    assert 2 <= hits <= 20  # 10 expected, standard deviation 3.1


def test_bootstrap_of_one_person_knows_nothing_of_others() -> None:
    """However many votes one person gives, the interval is without end."""
    interval = person_bootstrap(
        accuracy, votes([3.0, 1.0, 2.0, 0.0], [True, True, False, False], ["a"] * 4), seed=0
    )
    assert (interval.value, interval.low, interval.high, interval.n) == (0.75, -UNKNOWN, UNKNOWN, 4)


def test_bootstrap_draws_whole_persons() -> None:
    """Two persons, each with one right and one wrong half of the whole: 0.5 can never be left."""
    judged = votes([2.0, 1.0, 2.0, 1.0], [True, False, True, False], ["a", "a", "b", "b"])
    interval = person_bootstrap(accuracy, judged, seed=0, draws=50)
    assert (interval.low, interval.high) == (1.0, 1.0)


def test_bootstrap_is_the_same_for_the_same_seed() -> None:
    """A verdict can be made again from the same rows."""
    judged = votes([3.0, 1.0, 2.0, 0.0], [True, True, False, False])
    assert person_bootstrap(margin, judged, 5) == person_bootstrap(margin, judged, 5)


def test_difference_of_a_system_to_itself_is_nothing() -> None:
    """The same persons are drawn for both sides."""
    judged = votes([3.0, 1.0, 2.0, 0.0], [True, True, False, False])
    interval = difference_bootstrap(accuracy, judged, judged, seed=0)
    assert (interval.value, interval.low, interval.high) == (0.0, 0.0, 0.0)


def test_difference_refuses_two_sets_of_rows() -> None:
    """Figures on different rows have no difference."""
    with pytest.raises(ValueError, match="different rows"):
        difference_bootstrap(accuracy, votes([1.0], [True]), votes([1.0], [True], ["x"]), seed=0)


def test_repeated_share_of_a_known_text() -> None:
    """1 2 3 4 1 2 3 4 has five 4-grams, four of them different: one in five is a repetition."""
    assert repeated_share([1, 2, 3, 4, 1, 2, 3, 4]) == pytest.approx(0.2)
    assert repeated_share([7, 7, 7]) == 0.0


def test_distinct_share_of_known_replies() -> None:
    """1-2, 2-1, 1-2 and 1-2: two different of four."""
    assert distinct_share([[1, 2, 1, 2], [1, 2]]) == 0.5


def test_the_interval_of_a_mean() -> None:
    """Half 0, half 1 of two hundred: a standard error of 0.035; of one row nothing is known."""
    found = figures.mean_bootstrap([0.0, 1.0] * 100, 0)
    assert (found.value, found.n) == (0.5, 200)
    assert (found.low, found.high) == (pytest.approx(0.43, abs=0.02), pytest.approx(0.57, abs=0.02))
    assert figures.mean_bootstrap([1.0], 0).low == -figures.UNKNOWN
    assert figures.mean_bootstrap([], 0).value == 0.0
