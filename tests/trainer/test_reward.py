"""The reward model: it finds what is liked, and who contradicts everybody."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.trainer.opinions import STATES, rows, votes
from trainer.figures import auc
from trainer.reward import (
    CONTRARY_Z,
    Opinions,
    _against,
    contrary_people,
    fit_reward,
    most_contrary,
    out_of_fold,
)
from trainer.style import FEATURES


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


def test_of_two_who_contradict_each_other_neither_is_contrary() -> None:
    """With as many votes either way there is no majority to contradict."""
    said = votes(160, contrary=80)
    of_votes = rows(["ann"] * 80 + ["loud"] * 80)
    both = replace(said, of_votes=of_votes)
    assert contrary_people(both) == frozenset()


def test_the_most_contrary_is_found_first_and_never_half_of_what_was_said() -> None:
    """Of all z only those below -2.3 count, and only of who was not found yet."""
    against = {"ann": -2.5, "loud": -6.0, "ben": -2.2}
    spoken = {"ann": 15, "loud": 40, "ben": 15, "cid": 15, "dan": 15}
    nobody, loud = frozenset[str](), frozenset({"loud"})
    assert most_contrary(against, spoken, nobody) == "loud"
    assert most_contrary(against, {**spoken, "loud": 60}, nobody) is None  # half
    assert most_contrary(against, spoken, loud) is None  # 55 of 100 together
    assert most_contrary(against, {**spoken, "ann": 4}, loud) == "ann"
    assert most_contrary({"ben": -2.2}, spoken, nobody) is None


def test_among_three_nobody_contradicts_everybody() -> None:
    """Two others are no community; three are."""
    spoken = {"loud": 10, "ann": 20, "ben": 20}
    assert most_contrary({"loud": -6.0}, spoken, frozenset()) is None
    assert most_contrary({"loud": -6.0}, {**spoken, "cid": 1}, frozenset()) == "loud"


def test_who_was_contradicted_by_one_loud_person_is_not_contrary_to_the_rest() -> None:
    """Of a hundred votes 48 are the other way round, which makes most of the others seem so too;
    with those turned all agree.
    """
    said = votes(100, contrary=48)
    people = [
        "loud" if one == "loud" else f"few{n % 2}" if n < 10 else "many"
        for n, one in enumerate(said.of_votes.people)
    ]
    named = replace(said, of_votes=rows(people))
    assert _against(named)["many"] < -CONTRARY_Z
    assert contrary_people(named) == {"loud"}
    assert min(_against(named.turned(frozenset({"loud"}))).values()) > CONTRARY_Z


def test_what_is_turned_round_is_said_the_other_way_and_by_nobody_else() -> None:
    """Thumbs turn, and the sides of a pair change places; turned again all is as before."""
    voted = votes(20, contrary=5)
    chosen, rejected = np.random.default_rng(5).normal(size=(2, 4, voted.votes.shape[1]))
    of_pairs = rows(["p0", "loud", "p0", "loud"])
    said = Opinions(voted.votes, voted.labels, voted.of_votes, chosen, rejected, of_pairs)
    turned = said.turned(frozenset({"loud"}))
    assert turned.labels.tolist() == [*said.labels[:15], *(1 - said.labels[15:])]
    assert np.array_equal(turned.chosen[1::2], rejected[1::2])
    assert np.array_equal(turned.rejected[1::2], chosen[1::2])
    assert np.array_equal(turned.chosen[::2], chosen[::2])
    again = turned.turned(frozenset({"loud"}))
    assert np.array_equal(again.labels, said.labels)
    assert np.array_equal(again.chosen, said.chosen)


def test_turned_round_a_contrary_person_teaches_what_all_others_do() -> None:
    """With forty votes the other way round the reward orders unseen replies as well as with forty
    of everybody's; left out, they would only be missing.
    """
    said, unseen = votes(60, contrary=28), votes(300, seed=1)
    liked = (unseen.labels > 0).tolist()

    def found(opinions: Opinions) -> float:
        return auc(fit_reward(opinions).score(unseen.votes).tolist(), liked)

    contrary = contrary_people(said)
    assert contrary == {"loud"}
    assert found(said.turned(contrary)) == pytest.approx(found(votes(60)), abs=1e-6)
    assert found(said.turned(contrary)) > found(said.without(contrary))


def test_a_far_outlier_counts_no_more_than_an_odd_one() -> None:
    """Features are cut at three standard deviations, so no reply can be infinitely bad."""
    said = votes(120)
    reward = fit_reward(said)
    odd, absurd = said.votes[:1].copy(), said.votes[:1].copy()
    odd[0, STATES + 6], absurd[0, STATES + 6] = 30.0, 1e9
    assert reward.score(odd)[0] == reward.score(absurd)[0]
