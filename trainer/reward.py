"""A reward model of a community: what people like, as a linear function of a reply's features.

Features are the base's own hidden states, averaged over the reply (trainer.states), beside a few
plain counts (trainer.style). The fit is a logistic regression on votes and, on differences of
features, on pairs (Bradley and Terry 1952), together:

    minimise  Σ_votes c·ℓ(s·(w·x + b)) + Σ_pairs c·ℓ(w·(x₊ - x₋)) + λ/2·|w|²

with s = ±1 for the thumb and c the example's weight, scaled to a mean of 1. ℓ(m) is softplus(-m);
who is wrong with chance ε (trainer.reliability) counts 1 - 2ε times as much, and is forgiven half
of it: ℓ(m) = -log((1 - ε/2)·σ(m) + ε/2·σ(-m)). Deterministic. What it foretells of an example it
was not fitted on (`out_of_fold`) says if there is anything to learn, and what it foretells of one
person's votes from all others' who contradicts everybody.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.figures import pairs_z, together, votes_z
from trainer.states import LAYERS
from trainer.style import FEATURES

PENALTY = 3.0
STYLE_SHARE = 0.4
"""How large one standard deviation of a count is beside one of all states of a layer together."""
FARTHEST = 3.0
"""Standard deviations from the mean beyond which a feature says no more: a reply of one letter
eighty times is no better and no worse than one that is merely odd."""
FOLDS = 5
FEWEST_SAID = 8
"""Votes and pairs from which on one can say that a person contradicts the others."""
FEWEST_OTHERS = 3
"""So many people must be left to contradict: among two or three nobody is everybody."""
CONTRARY_Z = 2.3
"""Standard errors: by chance once in a hundred people."""
_FAR = 50.0
"""Log-odds beyond which a margin is no further: its exponential must be a number."""
_LEAST_SPREAD = (1e-3, 0.1)
"""Added to the standard deviations of states and counts: what hardly varies says little."""

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rows:
    """Who said something how loudly of which prompt, row by row."""

    people: Sequence[str]
    prompts: Sequence[str]
    weights: Floats  # (N,)

    def take(self, kept: Mask) -> Rows:
        """Return the rows where the mask is true."""
        people = [one for one, stays in zip(self.people, kept, strict=True) if stays]
        prompts = [one for one, stays in zip(self.prompts, kept, strict=True) if stays]
        return Rows(people, prompts, self.weights[kept])


@dataclass(frozen=True, slots=True)
class Opinions:
    """What people said, as features: votes (one reply each) and pairs (chosen over rejected)."""

    votes: Floats  # (V, D)
    labels: Floats  # (V,) 1 for a 👍, 0 for a 👎
    of_votes: Rows
    chosen: Floats  # (P, D)
    rejected: Floats  # (P, D)
    of_pairs: Rows

    @property
    def people(self) -> list[str]:
        """Return who cast each vote, then who chose of each pair."""
        return [*self.of_votes.people, *self.of_pairs.people]

    def take(self, votes: Mask, pairs: Mask) -> Opinions:
        """Return the votes and pairs where the masks are true."""
        return Opinions(
            self.votes[votes],
            self.labels[votes],
            self.of_votes.take(votes),
            self.chosen[pairs],
            self.rejected[pairs],
            self.of_pairs.take(pairs),
        )

    def divided(self, votes: int, pairs: int) -> tuple[Opinions, Opinions]:
        """Return so many votes and pairs from the beginning, and the rest."""
        first = np.arange(len(self.labels)) < votes, np.arange(len(self.chosen)) < pairs
        return self.take(*first), self.take(~first[0], ~first[1])

    def by(self, people: frozenset[str]) -> tuple[Mask, Mask]:
        """Return which votes and which pairs are by these people."""
        return (
            np.array([one in people for one in self.of_votes.people], dtype=bool),
            np.array([one in people for one in self.of_pairs.people], dtype=bool),
        )

    def without(self, people: frozenset[str]) -> Opinions:
        """Return what everybody else said."""
        votes, pairs = self.by(people)
        return self.take(~votes, ~pairs)

    def turned(self, people: frozenset[str]) -> Opinions:
        """Return the same with what these people said the other way round."""
        votes, pairs = self.by(people)
        return replace(
            self,
            labels=np.where(votes, 1 - self.labels, self.labels),
            chosen=np.where(pairs[:, None], self.rejected, self.chosen),
            rejected=np.where(pairs[:, None], self.chosen, self.rejected),
        )


@dataclass(frozen=True, slots=True)
class Scale:
    """How features become comparable: a layer's states count together as much as one number."""

    mean: Floats  # (D,)
    spread: Floats  # (D,)

    def __call__(self, features: Floats) -> Floats:
        """Return standardised features, none far out.  # (N, D) of (N, D)"""
        scaled: Floats = np.clip((features - self.mean) / self.spread, -FARTHEST, FARTHEST)
        states = features.shape[1] - len(FEATURES)
        scaled[:, :states] /= np.sqrt(max(1.0, states / LAYERS))
        scaled[:, states:] *= STYLE_SHARE
        return scaled


@dataclass(frozen=True, slots=True)
class Reward:
    """A fitted reward: r(x) = w·scale(x) + b, in log-odds of a 👍."""

    scale: Scale
    weights: Floats  # (D,)
    bias: float

    def score(self, features: Floats) -> Floats:
        """Return the reward of each reply.  # (N,) of (N, D)"""
        scored: Floats = self.scale(features) @ self.weights + self.bias
        return scored

    def save(self, path: Path) -> None:
        """Write it as a NumPy archive."""
        mean, spread = self.scale.mean, self.scale.spread
        np.savez(path, mean=mean, spread=spread, weights=self.weights, bias=self.bias)

    @classmethod
    def load(cls, path: Path) -> Reward:
        """Read one that was saved."""
        with np.load(path) as kept:
            scale = Scale(kept["mean"], kept["spread"])
            return cls(scale, kept["weights"], float(kept["bias"]))

    def style(self) -> dict[str, float]:
        """Return what each plain count adds when it grows by one standard deviation, log-odds."""
        counts = STYLE_SHARE * self.weights[-len(FEATURES) :]
        return dict(zip(FEATURES, counts.round(3).tolist(), strict=True))


def fit_reward(said: Opinions, wrong: Mapping[str, float] = MappingProxyType({})) -> Reward:
    """Fit the reward; with votes of one kind and no pairs it is constant but for the penalty.

    `wrong` says how often people are, below ½; who is not named never is.
    """
    scale = scale_of(said)
    votes = torch.from_numpy(scale(said.votes))
    pairs = torch.from_numpy(scale(said.chosen) - scale(said.rejected))
    signs = torch.from_numpy(2 * said.labels - 1)
    errors = np.array([wrong.get(one, 0.0) for one in said.people])
    counts = np.concatenate([said.of_votes.weights, said.of_pairs.weights]) * (1 - 2 * errors)
    weights, doubts = torch.from_numpy(counts / counts.mean()), torch.from_numpy(errors / 2)
    found = torch.zeros(votes.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [found], max_iter=500, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        solver.zero_grad()
        w, b = found[:-1], found[-1]
        margins = torch.cat([signs * (votes @ w + b), pairs @ w])
        penalty = PENALTY / 2 * w.square().sum()
        forgiven = torch.log1p(doubts * torch.expm1((-margins).clamp(max=_FAR)))
        each = torch.nn.functional.softplus(-margins) - forgiven
        total = (weights * each).sum() + penalty
        total.backward()  # type: ignore[no-untyped-call]
        return total

    solver.step(loss)  # type: ignore[no-untyped-call]
    fitted = found.detach().numpy()
    return Reward(scale, fitted[:-1].copy(), float(fitted[-1]))


def out_of_fold(said: Opinions, seed: int) -> tuple[Floats, Floats]:
    """Return each vote's reward and each pair's difference by a fit that never saw its prompt."""
    vote_folds, pair_folds = folds_by_prompt(said, seed, FOLDS)
    rewards, differences = np.zeros(len(vote_folds)), np.zeros(len(pair_folds))
    for number in range(FOLDS):
        votes, pairs = vote_folds == number, pair_folds == number
        if votes.all() and pairs.all():
            continue  # one prompt alone: nothing to fit on
        reward = fit_reward(said.take(~votes, ~pairs))
        rewards[votes] = reward.score(said.votes[votes])
        differences[pairs] = reward.score(said.chosen[pairs]) - reward.score(said.rejected[pairs])
    return rewards, differences


def folds_by_prompt(
    said: Opinions, seed: int, count: int
) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Return in which of `count` folds each vote and each pair is; a prompt is in one only."""
    prompts = sorted({*said.of_votes.prompts, *said.of_pairs.prompts})
    random.Random(seed).shuffle(prompts)
    fold = {prompt: place % count for place, prompt in enumerate(prompts)}
    return (
        np.array([fold[prompt] for prompt in said.of_votes.prompts], dtype=int),
        np.array([fold[prompt] for prompt in said.of_pairs.prompts], dtype=int),
    )


def contrary_people(said: Opinions) -> frozenset[str]:
    """Return who says the opposite of what all others say, more surely than by chance.

    The reward of the others orders a person's votes and pairs; z is how many standard errors under
    chance it does so (Mann and Whitney for votes, the sign test for pairs, added up by Stouffer's
    rule). A person of another taste is not contrary: their votes are in no order at all. Once one
    is found, what they said is turned round and all others are looked at anew: who was contradicted
    by one loud person seemed contrary to the rest.
    """
    spoken = Counter(said.people)
    found: frozenset[str] = frozenset()
    while (person := most_contrary(_against(said.turned(found)), spoken, found)) is not None:
        found |= {person}
    return found


def _against(said: Opinions) -> dict[str, float]:
    """Return z of everybody who said enough."""
    found = {}
    for person, count in Counter(said.people).items():
        others = said.without(frozenset([person]))
        if count < FEWEST_SAID or len(others.labels) + len(others.chosen) < FEWEST_SAID:
            continue
        own = said.take(*said.by(frozenset([person])))
        reward = fit_reward(others)
        differences = reward.score(own.chosen) - reward.score(own.rejected)
        found[person] = together(
            votes_z(reward.score(own.votes), own.labels > 0), pairs_z(differences)
        )
    return found


def most_contrary(
    against: Mapping[str, float], spoken: Mapping[str, int], found: frozenset[str]
) -> str | None:
    """Return the most contrary person by their z, as long as they and those found already said less
    than all others; None if nobody is.

    At half none can tell who contradicts whom, and among few people each has their own taste.
    """
    if len(spoken) - len(found) - 1 < FEWEST_OTHERS:
        return None
    left = {one: z for one, z in against.items() if z < -CONTRARY_Z and one not in found}
    if not left:
        return None
    person = min(left, key=lambda one: (left[one], one))
    said = sum(spoken[one] for one in {*found, person})
    return person if 2 * said < sum(spoken.values()) else None


def scale_of(said: Opinions) -> Scale:
    """Return the scale on which the replies people spoke of are comparable, whatever they said."""
    features = np.concatenate([said.votes, said.chosen, said.rejected])
    states = features.shape[1] - len(FEATURES)
    spread = features.std(axis=0)
    spread[:states] += _LEAST_SPREAD[0]
    spread[states:] += _LEAST_SPREAD[1]
    return Scale(features.mean(axis=0), spread)
