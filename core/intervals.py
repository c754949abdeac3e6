"""Intervals for shares of votes."""

from __future__ import annotations

import math

Z_95 = 1.959964
"""The 97.5 % point of the standard normal distribution."""


def wilson(won: float, count: int) -> tuple[float, float]:
    """Return the 95 % score interval of won / count (Wilson 1927); (0, 1) where count is 0.

    `won` may hold halves, for ties.
    """
    if count <= 0:
        return 0.0, 1.0
    share, z2 = won / count, Z_95 * Z_95
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    spread = math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    half = Z_95 * spread / (1 + z2 / count)
    return max(0.0, middle - half), min(1.0, middle + half)
