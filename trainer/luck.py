"""Would chance foretell the votes as well? Everything is done anew for thumbs dealt out at random.

Under the hypothesis that people vote without looking, every dealing of the same thumbs over the
same replies (and of sides over the same pairs) is as likely as what happened. So whatever one makes
of the thumbs, p = (1 + dealings that give at least as much) / (1 + dealings) is at most α in a
share α of cases, if the same is made of every dealing. Here that is: turn round what is said by who
contradicts all others, look at it in three ways, and go by the one that chance reaches most seldom.
Ridge regressions foretell each row from all others: by everything, and by the base's states alone,
for a tone is in many of them at once and counts only disturb it. A habit is in one plain count and
would drown in either: the third way is the count that goes furthest with the thumbs. All rows weigh
the same here, since an example's weight follows from the thumbs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.figures import pairs_z, together, votes_z
from trainer.reward import FEWEST_SAID, Opinions, most_contrary, scale_of
from trainer.style import FEATURES

DEALINGS = 2000
RIDGE = 30.0
"""The reward's penalty over p(1 - p), the curvature of its loss where one in nine is liked."""
_TIE = 1e-9

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Votes, then pairs: what they are like, and who said them."""

    features: Floats  # (N, D) standardised, counts last; a pair's are the difference of its replies
    votes: Mask  # (N,)
    people: NDArray[np.str_]  # (N,)


def chance_of_luck(said: Opinions, seed: int, dealings: int = DEALINGS) -> float:
    """Return how often dealt out thumbs are foretold at least as well; 1.0 if nothing can be.

    What a dealing gives is the smallest of three shares: of dealings where everything foretells as
    much (`_foretold`), where states alone do, and where a count goes as far (`_counted`).
    """
    if not len(said.chosen) and not 0 < said.labels.sum() < len(said.labels):
        return 1.0
    rows = _rows(said)
    thumbs = _turned(rows, _dealt(said, seed, dealings))
    features, thumbs = _centred(rows, thumbs)
    states, counts = np.split(features, [-len(FEATURES)], axis=1)
    ways = _foretold(features, thumbs), _foretold(states, thumbs), _counted(counts, thumbs)
    rarest = np.min([_as_high(way) for way in ways], axis=0)
    return float(np.mean(rarest <= rarest[0] + _TIE))


def _rows(said: Opinions) -> _Rows:
    scale = scale_of(said)
    features = np.concatenate([scale(said.votes), scale(said.chosen) - scale(said.rejected)])
    return _Rows(
        features=features,
        votes=np.arange(len(features)) < len(said.labels),
        people=np.array(said.people),
    )


def _dealt(said: Opinions, seed: int, dealings: int) -> Floats:
    """Return thumbs (0, 1) and sides (±1/2); what was said comes first.  # (1 + dealings, N)"""
    rng = np.random.default_rng(seed)
    thumbs = rng.permuted(np.tile(said.labels, (dealings, 1)), axis=1)
    sides = rng.choice([-0.5, 0.5], size=(dealings, len(said.chosen)))
    first = np.concatenate([said.labels, np.full(len(said.chosen), 0.5)])
    return np.concatenate([first[None], np.concatenate([thumbs, sides], axis=1)])


def _centred(rows: _Rows, thumbs: Floats) -> tuple[Floats, Floats]:
    """Return features and thumbs, votes around their means, pairs as they are.

    # (N, D), (dealings, N)
    """
    features, given, votes = rows.features.copy(), thumbs.copy(), rows.votes
    if votes.any():
        features[votes] -= features[votes].mean(axis=0)
        given[:, votes] -= given[:, votes].mean(axis=1, keepdims=True)
    return features, given


def _foretold(features: Floats, thumbs: Floats) -> Floats:
    """Return Σ t·r of each dealing, r being what a ridge regression on all other rows foretells.

    With the hat matrix A = K(K + λ)⁻¹, K the rows' inner products, r = (At - diag(A)t) / (1 -
    diag(A)): leaving one out in closed form (Allen 1974).  # (dealings,)
    """
    alike = features @ features.T
    hat = np.linalg.solve(alike + RIDGE * np.eye(len(alike)), alike)
    own = np.diag(hat)
    foretold = (thumbs @ hat - thumbs * own) / (1 - own)
    found: Floats = (thumbs * foretold).sum(axis=1)
    return found


def _counted(counts: Floats, thumbs: Floats) -> Floats:
    """Return the largest |Σ t·x| / √(Σ t² Σ x²) of each dealing over the counts x.

    # (dealings,)
    """
    far = np.sqrt(np.square(thumbs).sum(axis=1))[:, None] * np.sqrt(np.square(counts).sum(axis=0))
    found: Floats = (np.abs(thumbs @ counts) / np.where(far > 0, far, 1.0)).max(axis=1)
    return found


def _as_high(values: Floats) -> Floats:
    """Return for each value the share of all values that are at least as high.  # (N,)"""
    lower = np.searchsorted(np.sort(values), values - _TIE * np.abs(values))
    found: Floats = 1 - lower / len(values)
    return found


def _foreteller(rows: _Rows, train: Mask, test: Mask) -> Floats:
    """Return A of rewards = A · thumbs: a ridge regression around the mean vote.  # (test, train)

    Rewards are without the constant, which is the share of likes among all others: it is lower for
    a liked reply than for a disliked one, whatever is voted. A constant added to all thumbs adds
    nothing, since the features it is trained on add up to nothing.
    """
    features, spoken = rows.features.copy(), train & rows.votes
    if spoken.any():
        features[rows.votes] -= features[spoken].mean(axis=0)
    known, asked = features[train], features[test]
    within = known @ known.T + RIDGE * np.eye(len(known))
    found: Floats = asked @ known.T @ np.linalg.inv(within)
    return found


def _turned(rows: _Rows, thumbs: Floats) -> Floats:
    """Return the thumbs with what contrary people said turned round in each dealing, one person
    after another, as `trainer.reward.contrary_people` does.  # (dealings, N)
    """
    spoken = Counter(rows.people.tolist())
    foretellers = {
        person: _foreteller(rows, rows.people != person, rows.people == person)
        for person, count in spoken.items()
        if min(count, len(rows.people) - count) >= FEWEST_SAID
    }
    turned = thumbs.copy()
    found = [frozenset[str]()] * len(thumbs)
    open_ones = np.arange(len(thumbs))
    while len(open_ones):
        against = _against(rows, turned[open_ones], foretellers)
        again = []
        for place, zs in zip(open_ones.tolist(), against, strict=True):
            person = most_contrary(zs, spoken, found[place])
            if person is not None:
                found[place] |= {person}
                own = rows.people == person
                turned[place, own] = np.where(rows.votes[own], 1, 0) - turned[place, own]
                again.append(place)
        open_ones = np.array(again, dtype=int)
    return turned


def _against(
    rows: _Rows, thumbs: Floats, foretellers: Mapping[str, Floats]
) -> list[dict[str, float]]:
    """Return in each dealing how much others' thumbs foretell of each person's own, as z."""
    found: list[dict[str, float]] = [{} for _ in thumbs]
    for person, foreteller in foretellers.items():
        own = rows.people == person
        rewards, votes = thumbs[:, ~own] @ foreteller.T, rows.votes[own]
        for zs, reward, said in zip(found, rewards, thumbs[:, own], strict=True):
            differences = np.sign(said[~votes]) * reward[~votes]
            zs[person] = together(votes_z(reward[votes], said[votes] > 0), pairs_z(differences))
    return found
