"""Charts as numbers that a template puts into SVG: curves, bars and intervals. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 320.0, 140.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 8.0, 10.0, 22.0
"""The drawing area of a curve, and the room for what stands beside it."""
_NARROWEST = 1e-6


@dataclass(frozen=True, slots=True)
class Curve:
    """A line to draw: `points` as SVG wants them, the figures at both ends of its axis, and where
    zero is, if it is in sight.
    """

    name: str
    points: str
    low: float
    high: float
    last: float
    zero: float | None


def curve(name: str, values: Sequence[tuple[float, float]]) -> Curve | None:
    """Draw (share of the way, value) as a line from left to right; None for fewer than two."""
    if len(values) < 2:
        return None
    low, high = min(value for _, value in values), max(value for _, value in values)
    spread = max(high - low, _NARROWEST)
    first_x = values[0][0]
    wide = max(values[-1][0] - first_x, _NARROWEST)

    def at(share: float, value: float) -> str:
        x = LEFT + (WIDTH - LEFT - RIGHT) * (share - first_x) / wide
        return f"{x:.1f},{_height(value, low, spread):.1f}"

    return Curve(
        name=name,
        points=" ".join(at(share, value) for share, value in values),
        low=low,
        high=high,
        last=values[-1][1],
        zero=_height(0.0, low, spread) if low < 0 < high else None,
    )


def shares(*counts: int) -> list[tuple[float, float]]:
    """Return (start, width) of each count's part of a bar 100 wide."""
    total = sum(counts)
    parts, start = [], 0.0
    for count in counts:
        width = 100.0 * count / total if total else 0.0
        parts.append((round(start, 2), round(width, 2)))
        start += width
    return parts


def _height(value: float, low: float, spread: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / spread
