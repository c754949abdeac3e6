"""Would chance foretell the votes as well? Everything is done anew for thumbs dealt out at random.

Under the hypothesis that people vote without looking, every dealing of the same thumbs over the
same replies (and of sides over the same pairs) is as likely as what happened. So whatever one makes
of the thumbs, p = (1 + dealings that give at least as much) / (1 + dealings) is at most α in a
share α of cases, if the same is made of every dealing. Here that is: leave out who contradicts all
others, fit on the other prompts, foretell, compare. A ridge regression, linear in the thumbs, is
what makes two thousand fits cheap; the reward that ranks replies is logistic (trainer.reward).
All rows weigh the same here, since an example's weight follows from the thumbs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.figures import pairs_z, together, votes_z
from trainer.reward import CONTRARY_Z, FEWEST_SAID, Opinions, folds_by_prompt, scale_of

DEALINGS = 2000
FOLDS = 10
RIDGE = 30.0
"""The reward's penalty over p(1 - p), the curvature of its loss where one in nine is liked."""
FARTHEST = 3.0
"""Standard deviations beyond which a reward says no more."""

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Votes, then pairs: what they are like, and who said them."""

    alike: Floats  # (N, N) inner products of features; a pair's are those of its difference
    votes: Mask  # (N,)
    folds: NDArray[np.int_]  # (N,)
    people: NDArray[np.str_]  # (N,)


def chance_of_luck(said: Opinions, seed: int, dealings: int = DEALINGS) -> float:
    """Return how often dealt out thumbs are foretold at least as well; 1.0 if nothing can be.

    A dealing gives T = Σ_votes (y - ȳ) / sd(y) · exp(r / sd(r)) + Σ_pairs d / rms(d), with rewards
    r and differences d (chosen minus rejected) out of fold and r / sd(r) cut at ±3. The exponential
    is there because likes are few: they lie far up, and much of the order below is of no matter.
    """
    if not len(said.chosen) and not 0 < said.labels.sum() < len(said.labels):
        return 1.0
    rows, thumbs = _rows(said, seed), _dealt(said, seed, dealings)
    reached = np.zeros(len(thumbs))
    for left_out, places in _contrary(rows, thumbs):
        kept = ~np.isin(rows.people, sorted(left_out))
        reached[places] = _foretold(rows, kept, thumbs[places])
    return float(np.mean(reached >= reached[0] - 1e-9))


def _rows(said: Opinions, seed: int) -> _Rows:
    scale = scale_of(said)
    features = np.concatenate([scale(said.votes), scale(said.chosen) - scale(said.rejected)])
    return _Rows(
        alike=features @ features.T,
        votes=np.arange(len(features)) < len(said.labels),
        folds=np.concatenate(folds_by_prompt(said, seed, FOLDS)),
        people=np.array([*said.of_votes.people, *said.of_pairs.people]),
    )


def _dealt(said: Opinions, seed: int, dealings: int) -> Floats:
    """Return thumbs (0, 1) and sides (±1/2); what was said comes first.  # (1 + dealings, N)"""
    rng = np.random.default_rng(seed)
    thumbs = rng.permuted(np.tile(said.labels, (dealings, 1)), axis=1)
    sides = rng.choice([-0.5, 0.5], size=(dealings, len(said.chosen)))
    first = np.concatenate([said.labels, np.full(len(said.chosen), 0.5)])
    return np.concatenate([first[None], np.concatenate([thumbs, sides], axis=1)])


def _foreteller(rows: _Rows, train: Mask, test: Mask) -> Floats:
    """Return A of rewards = A · thumbs: a ridge regression around the mean vote.  # (test, train)

    Rewards are without the constant, which is the share of likes among all others: it is lower for
    a liked reply than for a disliked one, whatever is voted.
    """
    alike, among = rows.alike[np.ix_(train, train)], rows.votes[train]
    centre = np.eye(len(among))
    if among.any():
        centre[np.ix_(among, among)] -= 1 / among.sum()
    across = rows.alike[np.ix_(test, train)].copy()
    if among.any():
        across[rows.votes[test]] -= alike[among].mean(axis=0)
    within = centre @ alike @ centre + RIDGE * np.eye(len(among))
    found: Floats = np.linalg.solve(within, centre @ across.T).T @ centre
    return found


def _contrary(rows: _Rows, thumbs: Floats) -> Iterator[tuple[frozenset[str], NDArray[np.int_]]]:
    """Yield who contradicts all others, and in which dealings (see trainer.reward)."""
    spoken = Counter(rows.people.tolist())
    found: list[set[str]] = [set() for _ in thumbs]
    for person, count in spoken.items():
        own = rows.people == person
        if count < FEWEST_SAID or len(own) - count < FEWEST_SAID:
            continue
        rewards = thumbs[:, ~own] @ _foreteller(rows, ~own, own).T
        votes = rows.votes[own]
        for place, (reward, said) in enumerate(zip(rewards, thumbs[:, own], strict=True)):
            differences = np.sign(said[~votes]) * reward[~votes]
            if (
                together(votes_z(reward[votes], said[votes] > 0), pairs_z(differences))
                < -CONTRARY_Z
            ):
                found[place].add(person)
    sets = [
        frozenset(one if 2 * sum(spoken[who] for who in one) < spoken.total() else ())
        for one in found
    ]
    for distinct in set(sets):
        yield distinct, np.array([place for place, one in enumerate(sets) if one == distinct])


def _foretold(rows: _Rows, kept: Mask, thumbs: Floats) -> Floats:
    """Return T of each dealing, of the rows kept.  # (dealings,)"""
    rewards = np.zeros(thumbs.shape)
    for fold in np.unique(rows.folds[kept]):
        test, train = kept & (rows.folds == fold), kept & (rows.folds != fold)
        if train.any():
            rewards[:, test] = thumbs[:, train] @ _foreteller(rows, train, test).T
    votes, pairs = kept & rows.votes, kept & ~rows.votes
    total = np.zeros(len(thumbs))
    if votes.any():
        high = np.exp(
            np.clip(_by(rewards[:, votes].std(axis=1), rewards[:, votes]), -FARTHEST, FARTHEST)
        )
        said = thumbs[:, votes] - thumbs[:, votes].mean(axis=1, keepdims=True)
        total += (_by(said.std(axis=1), said) * high).sum(axis=1)
    if pairs.any():
        apart = np.sign(thumbs[:, pairs]) * rewards[:, pairs]
        total += _by(np.sqrt(np.square(apart).mean(axis=1)), apart).sum(axis=1)
    return total


def _by(spread: Floats, values: Floats) -> Floats:
    """Return each dealing's values over its spread; zeros where there is none."""
    out: Floats = values / np.where(spread > 0, spread, 1.0)[:, None]
    return out
