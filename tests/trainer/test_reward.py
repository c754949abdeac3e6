"""The reward model: it finds what is liked, and who contradicts everybody."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.figures import auc
from trainer.reward import (
    Opinions,
    Rows,
    contrary_people,
    fewer_than_half,
    fit_reward,
    out_of_fold,
)
from trainer.style import FEATURES

STATES = 6


def rows(people: list[str]) -> Rows:
    return Rows(people, [f"q{n}" for n in range(len(people))], np.ones(len(people)))


def votes(count: int, *, seed: int = 0, contrary: int = 0) -> Opinions:
    """Votes by one count alone; the last `contrary` of them are one person's, all the other way."""
    chance = np.random.default_rng(seed)
    features = chance.normal(size=(count, STATES + len(FEATURES)))
    labels = (features[:, STATES + 6] > 0).astype(float)
    labels[count - contrary :] = 1 - labels[count - contrary :]
    people = [f"p{n % 5}" for n in range(count - contrary)] + ["loud"] * contrary
    nothing = np.zeros((0, features.shape[1]))
    return Opinions(features, labels, rows(people), nothing, nothing, rows([]))


def test_a_reward_learns_from_votes_what_is_liked() -> None:
    """It orders replies it never saw, and names the count that people vote by."""
    seen, unseen = votes(120), votes(300, seed=1)
    reward = fit_reward(seen)
    assert auc(reward.score(unseen.votes).tolist(), (unseen.labels > 0).tolist()) > 0.9
    assert max(reward.style(), key=lambda name: reward.style()[name]) == FEATURES[6]


def test_a_reward_learns_from_pairs_alone() -> None:
    """Of each pair the chosen one has more of one count; chance is 0.5, three errors
    above it 0.67.
    """
    chance = np.random.default_rng(2)
    chosen, rejected = chance.normal(size=(2, 80, STATES + len(FEATURES)))
    chosen[:, STATES] += 2
    nothing = np.zeros((0, chosen.shape[1]))
    people = [f"p{n % 4}" for n in range(80)]
    said = Opinions(nothing, np.zeros(0), rows([]), chosen, rejected, rows(people))
    _, differences = out_of_fold(said, seed=0)
    assert np.mean(differences > 0) > 0.67


def test_random_votes_foretell_nothing() -> None:
    """Out of fold the order of shuffled votes is chance: 0.5 within three standard errors."""
    said = votes(200)
    shuffled = np.random.default_rng(3).permutation(said.labels)
    mixed = Opinions(said.votes, shuffled, said.of_votes, said.chosen, said.rejected, said.of_pairs)
    rewards, _ = out_of_fold(mixed, seed=0)
    assert auc(rewards.tolist(), (shuffled > 0).tolist()) == pytest.approx(0.5, abs=0.125)


def test_one_who_votes_against_everybody_is_found() -> None:
    """Forty votes the other way round stand out; without them nobody does."""
    assert contrary_people(votes(160, contrary=40)) == {"loud"}
    assert contrary_people(votes(160)) == frozenset()


def test_of_two_who_contradict_each_other_neither_is_left_out() -> None:
    """With as many votes either way there is no majority to contradict."""
    said = votes(160, contrary=80)
    of_votes = rows(["ann"] * 80 + ["loud"] * 80)
    both = Opinions(said.votes, said.labels, of_votes, said.chosen, said.rejected, said.of_pairs)
    assert contrary_people(both) == frozenset()


def test_the_most_contrary_are_left_out_first_and_never_half_of_what_was_said() -> None:
    """Who is contradicted by one loud person may seem contrary too."""
    against = {"ann": -2.5, "loud": -6.0}
    assert fewer_than_half(against, {"ann": 15, "loud": 40, "ben": 45}) == {"loud"}
    assert fewer_than_half(against, {"ann": 10, "loud": 30, "ben": 60}) == {"ann", "loud"}
    assert fewer_than_half(against, {"ann": 10, "loud": 50, "ben": 40}) == frozenset()


def test_a_far_outlier_counts_no_more_than_an_odd_one() -> None:
    """Features are cut at three standard deviations, so no reply can be infinitely bad."""
    said = votes(120)
    reward = fit_reward(said)
    odd, absurd = said.votes[:1].copy(), said.votes[:1].copy()
    odd[0, STATES + 6], absurd[0, STATES + 6] = 30.0, 1e9
    assert reward.score(odd)[0] == reward.score(absurd)[0]
