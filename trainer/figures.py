"""Figures of a report from plain numbers and texts: order, chance, intervals, repetition.

Pure: numpy and strings, no torch, no files, no clock; every random draw has a seed. Does not know
how a reward or a reply was made, nor what is good enough (see gate).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from core.report import Interval

BOOTSTRAP_DRAWS = 2000
PERMUTATIONS = 20_000
NGRAM = 4
UNKNOWN = 1e9
"""The half-width of an interval that nothing is known about (JSON has no infinity)."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Judged:
    """Held-out feedback as numbers: one reward for each vote, one difference for each pair.

    `rewards` are implicit rewards (see scoring), `labels` their thumbs. `differences` are rewards
    of the chosen minus those of the rejected. The person of each row stands beside it.
    """

    rewards: list[float] = field(default_factory=list)
    labels: list[bool] = field(default_factory=list)
    voters: list[str] = field(default_factory=list)
    differences: list[float] = field(default_factory=list)
    choosers: list[str] = field(default_factory=list)

    def people(self) -> list[str]:
        """Return every person once, sorted."""
        return sorted({*self.voters, *self.choosers})

    def take(self, votes: Sequence[int], pairs: Sequence[int]) -> Judged:
        """Return the rows at these places (with repetition, as a bootstrap draws them)."""
        return Judged(
            rewards=[self.rewards[i] for i in votes],
            labels=[self.labels[i] for i in votes],
            voters=[self.voters[i] for i in votes],
            differences=[self.differences[i] for i in pairs],
            choosers=[self.choosers[i] for i in pairs],
        )


def ranks(values: Sequence[float]) -> Floats:
    """Return 1-based ranks, ties sharing their mean."""
    array = np.asarray(values, dtype=np.float64)
    _, inverse, counts = np.unique(array, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def auc(rewards: Sequence[float], labels: Sequence[bool]) -> float:
    """Return the share of (liked, disliked) combinations with the liked one higher; ties count
    half.

    NaN where one side is missing.
    """
    liked = np.asarray(labels, dtype=bool)
    up, down = int(liked.sum()), int((~liked).sum())
    if not up or not down:
        return float("nan")
    return float((ranks(rewards)[liked].sum() - up * (up + 1) / 2) / (up * down))


def votes_z(
    values: Sequence[float] | Floats, liked: Sequence[bool] | NDArray[np.bool_]
) -> float | None:
    """Return by how many standard errors liked values are higher: Mann and Whitney's z.

    Ties are allowed for; None where there is nothing to compare.
    """
    mask = np.asarray(liked, dtype=bool)
    up, count = int(mask.sum()), len(mask)
    if not 0 < up < count:
        return None
    order = ranks(list(values))
    spread = sqrt(up * (count - up) / (count - 1) * float(order.var()))
    above = float(order[mask].sum()) - up * (count + 1) / 2
    return above / spread if spread else None


def pairs_z(differences: Sequence[float] | Floats) -> float | None:
    """Return the sign test's z of differences; None where none is there."""
    signs = np.sign(np.asarray(differences, dtype=np.float64))
    told = int(np.count_nonzero(signs))
    return float(signs.sum()) / sqrt(told) if told else None


def together(*zs: float | None) -> float:
    """Add up independent z by Stouffer's rule; 0 without any."""
    found = [z for z in zs if z is not None]
    return sum(found) / sqrt(len(found)) if found else 0.0


def judged_z(judged: Judged) -> float:
    """Return by how many standard errors rewards are in the order people voted."""
    votes = votes_z(judged.rewards, judged.labels)
    return together(votes, pairs_z(judged.differences))


def accuracy(judged: Judged) -> float:
    """Return the share in the right order, of votes (an AUC) and pairs together; 0.5 is chance.

    The two shares are weighted by the inverse of their variance under chance: 12·U·D / (U + D + 1)
    for U liked and D disliked votes (Mann-Whitney), 4·P for P pairs (binomial). NaN where neither
    exists.
    """
    up = sum(judged.labels)
    weights, shares = (
        vote_and_pair_weights(up, len(judged.labels) - up, len(judged.differences)),
        [],
    )
    shares.append(auc(judged.rewards, judged.labels))
    signs = np.sign(judged.differences) if judged.differences else np.zeros(1)
    shares.append(float(np.mean((signs + 1) / 2)))
    total = sum(weights)
    return (
        sum(w * s for w, s in zip(weights, shares, strict=True) if w) / total
        if total
        else float("nan")
    )


def vote_and_pair_weights(up: int, down: int, pairs: int) -> tuple[float, float]:
    """Return the precision, under chance, of an AUC of `up`×`down` votes and of a share of
    `pairs`."""
    return (12 * up * down / (up + down + 1), 4.0 * pairs)


def margin(judged: Judged) -> float:
    """Return liked mean − disliked mean and the mean pair difference, weighted by their rows.

    NaN where there is neither a pair nor both kinds of votes.
    """
    liked = np.asarray(judged.labels, dtype=bool)
    rewards = np.asarray(judged.rewards, dtype=np.float64)
    parts = []
    if liked.any() and not liked.all():
        parts.append((len(liked), float(rewards[liked].mean() - rewards[~liked].mean())))
    if judged.differences:
        parts.append((len(judged.differences), float(np.mean(judged.differences))))
    rows = sum(n for n, _ in parts)
    return sum(n * value for n, value in parts) / rows if rows else float("nan")


def permutation_p(judged: Judged, seed: int, draws: int = PERMUTATIONS) -> float:
    """Return how often chance alone orders the rows at least as well: the gate's test of
    significance.

    Thumbs are dealt out anew over the same rewards and the sides of each pair are swapped at
    random; p = (1 + draws at least as accurate) / (1 + draws). Valid for any rewards, whatever they
    follow (length, say), since only the labels are random under the hypothesis. 1.0 where nothing
    can be ordered.
    """
    up = sum(judged.labels)
    weights = vote_and_pair_weights(up, len(judged.labels) - up, len(judged.differences))
    if not sum(weights):
        return 1.0
    rng = np.random.default_rng(seed)
    drawn = np.zeros(draws)
    if weights[0]:
        dealt = rng.permuted(np.tile(ranks(judged.rewards), (draws, 1)), axis=1)[:, :up].sum(axis=1)
        drawn += weights[0] * (dealt - up * (up + 1) / 2) / (up * (len(judged.labels) - up))
    if weights[1]:
        swap = rng.choice([-1.0, 1.0], size=(draws, len(judged.differences)))
        drawn += weights[1] * ((swap * np.sign(judged.differences) + 1) / 2).mean(axis=1)
    reached = accuracy(judged) * sum(weights) - 1e-9
    return float((1 + np.count_nonzero(drawn >= reached)) / (1 + draws))


def person_bootstrap(
    figure: Callable[[Judged], float], judged: Judged, seed: int, draws: int = BOOTSTRAP_DRAWS
) -> Interval:
    """Return a figure with its 95 % percentile interval when whole persons are drawn with
    replacement.

    Rows of one person go together, so that one person's thousand votes count as one person. Draws
    in which the figure does not exist are left out. One person alone tells nothing of others:
    ±UNKNOWN.
    """
    return _bootstrap(figure, judged, seed, draws)


def difference_bootstrap(
    figure: Callable[[Judged], float],
    own: Judged,
    other: Judged,
    seed: int,
    draws: int = BOOTSTRAP_DRAWS,
) -> Interval:
    """Return figure(own) − figure(other) with its interval; both see the same persons in every
    draw.

    `own` and `other` hold the same rows in the same order, with different rewards.
    """
    if (own.voters, own.choosers) != (other.voters, other.choosers):
        raise ValueError("difference_bootstrap: the two systems were judged on different rows")
    return _bootstrap(figure, own, seed, draws, minus=other)


def _bootstrap(
    figure: Callable[[Judged], float],
    judged: Judged,
    seed: int,
    draws: int,
    minus: Judged | None = None,
) -> Interval:
    def measure(votes: Sequence[int], pairs: Sequence[int]) -> float:
        value = figure(judged.take(votes, pairs))
        return value - figure(minus.take(votes, pairs)) if minus else value

    all_votes, all_pairs = range(len(judged.labels)), range(len(judged.differences))
    people, value = judged.people(), measure(all_votes, all_pairs)
    n = len(all_votes) + len(all_pairs)
    if len(people) < 2 or not np.isfinite(value):
        return Interval(value=known(value), low=-UNKNOWN, high=UNKNOWN, n=n)
    votes = {who: [i for i in all_votes if judged.voters[i] == who] for who in people}
    pairs = {who: [i for i in all_pairs if judged.choosers[i] == who] for who in people}
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(draws):
        drawn = [people[i] for i in rng.integers(len(people), size=len(people))]
        values.append(
            measure(
                [i for who in drawn for i in votes[who]], [i for who in drawn for i in pairs[who]]
            )
        )
    finite = np.asarray(values)[np.isfinite(values)]
    low, high = np.percentile(finite, [2.5, 97.5]) if len(finite) else (-UNKNOWN, UNKNOWN)
    return Interval(value=value, low=float(low), high=float(high), n=n)


def mean_bootstrap(
    values: Sequence[float] | Floats, seed: int, draws: int = BOOTSTRAP_DRAWS
) -> Interval:
    """Return a mean with its 95 % percentile interval, rows drawn with replacement."""
    own = np.asarray(values, dtype=np.float64)
    if len(own) < 2:
        return Interval(
            value=known(own.mean()) if len(own) else 0.0, low=-UNKNOWN, high=UNKNOWN, n=len(own)
        )
    drawn = np.random.default_rng(seed).choice(own, size=(draws, len(own))).mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(value=float(own.mean()), low=float(low), high=float(high), n=len(own))


def repeated_share(token_ids: Sequence[int], size: int = NGRAM) -> float:
    """Return the share of a reply's n-grams that stood in it before; 0 if it is shorter."""
    grams = [tuple(token_ids[i : i + size]) for i in range(len(token_ids) - size + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def distinct_share(replies: Sequence[Sequence[int]], size: int = 2) -> float:
    """Return distinct n-grams over all n-grams of all replies (distinct-2); 0 if there are none."""
    grams = [tuple(ids[i : i + size]) for ids in replies for i in range(len(ids) - size + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def known(value: float) -> float:
    """Return the value, or 0.0 for one that does not exist (NaN), as JSON has no word for it."""
    return float(value) if np.isfinite(value) else 0.0
