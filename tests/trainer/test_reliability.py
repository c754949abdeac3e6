"""How often people are wrong: found from what is foretold of their votes, and of use to a fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.trainer.opinions import CARELESS, votes
from trainer.best_of_n import foretold
from trainer.figures import Judged, auc
from trainer.gate import OFTEN_WRONG
from trainer.reliability import MOST, wrong_shares
from trainer.reward import Opinions, fit_reward


def spoilt(said: Opinions, seed: int = 5) -> Opinions:
    """Return the same with the thumbs of CARELESS people thrown by a coin."""
    chance = np.random.default_rng(seed).random(len(said.labels)) < 0.5
    careless, _ = said.by(frozenset(CARELESS))
    return replace(said, labels=np.where(careless, chance.astype(float), said.labels))


def test_who_throws_coins_is_told_from_who_reads() -> None:
    """Two of five people: their votes are to count for less than half, all others' for more."""
    wrong = wrong_shares(foretold(spoilt(votes(200)), seed=0))
    careless = [wrong[person] for person in CARELESS]
    careful = [share for person, share in wrong.items() if person not in CARELESS]
    assert min(careless) > OFTEN_WRONG > max(careful)
    assert all(0 < share < MOST for share in wrong.values())


def test_a_reward_learns_more_where_the_careless_count_less() -> None:
    """Replies it never saw are ordered better; where nobody is wrong it is the same to the bit."""
    said, unseen = spoilt(votes(200)), votes(400, seed=1)
    liked = (unseen.labels > 0).tolist()
    alike, known = fit_reward(said), fit_reward(said, wrong_shares(foretold(said, seed=0)))
    assert auc(known.score(unseen.votes).tolist(), liked) > auc(
        alike.score(unseen.votes).tolist(), liked
    )
    nobody = fit_reward(said, dict.fromkeys(said.people, 0.0))
    assert np.array_equal(nobody.weights, alike.weights)


def test_rare_likes_are_not_taken_for_errors() -> None:
    """One reply in twelve is liked and nobody errs: errors stay under half as common as likes."""
    said = votes(240, least=1.4)
    wrong = wrong_shares(foretold(said, seed=0))
    assert max(wrong.values()) < said.labels.mean() / 2


def test_who_chooses_by_a_coin_is_found_by_pairs_alone() -> None:
    """Of three people who choose, two as the reward foretells and one at random."""
    chance = np.random.default_rng(4)
    choosers = [f"p{n % 3}" for n in range(90)]
    differences = [
        chance.normal() if person == "p2" else abs(chance.normal()) for person in choosers
    ]
    wrong = wrong_shares(Judged(differences=differences, choosers=choosers))
    assert wrong["p2"] > 2 * max(wrong["p0"], wrong["p1"])


@pytest.mark.parametrize(
    "judged",
    [
        Judged(),
        Judged([1.0, -1.0] * 10, [True, False] * 10, ["ann", "ben"] * 10),
        Judged([0.5] * 30, [True, False] * 15, ["ann", "ben", "cid"] * 10),
    ],
    ids=["nobody", "two people", "nothing foretold"],
)
def test_nothing_is_said_of_people_where_nothing_is_known(judged: Judged) -> None:
    """Of two who disagree nobody knows who errs, nor where every vote is foretold alike."""
    assert wrong_shares(judged) == {}
