"""What made-up people said, as features: one plain count decides."""

from __future__ import annotations

import numpy as np

from trainer.reward import Opinions, Rows
from trainer.style import FEATURES

STATES = 6
DECIDES = STATES + 6
"""The column that people vote by."""
CARELESS = ("p3", "p4")
"""Two of the five people."""


def rows(people: list[str]) -> Rows:
    """Return rows of different prompts, each as loud as any other."""
    return Rows(people, [f"q{n}" for n in range(len(people))], np.ones(len(people)))


def votes(count: int, *, seed: int = 0, contrary: int = 0, least: float = 0.0) -> Opinions:
    """Votes by one count alone, which is to be above `least`; the last `contrary` of them are one
    person's, all the other way.
    """
    chance = np.random.default_rng(seed)
    features = chance.normal(size=(count, STATES + len(FEATURES)))
    labels = (features[:, DECIDES] > least).astype(float)
    labels[count - contrary :] = 1 - labels[count - contrary :]
    people = [f"p{n % 5}" for n in range(count - contrary)] + ["loud"] * contrary
    nothing = np.zeros((0, features.shape[1]))
    return Opinions(features, labels, rows(people), nothing, nothing, rows([]))
