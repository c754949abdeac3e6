"""Figures, times and states in plain words, as the pages show them. Pure functions."""

from __future__ import annotations

from datetime import UTC, datetime

from core.records import parse_time

STATE_WORDS = {
    "queued": "waiting",
    "snapshot": "choosing what to learn from",
    "training": "learning",
    "judging": "being judged",
    "publishing": "being put in place",
    "promoted": "accepted",
    "canary": "on trial",
    "refused": "refused",
    "failed": "failed",
    "cancelled": "cancelled",
    "interrupted": "interrupted",
    "candidate": "waiting",
    "live": "speaks now",
    "retired": "retired",
}
"""What the states of runs and adapters are called."""

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def sentence(text: str) -> str:
    """Return what a service said as a sentence, without glyphs that a machine may lack."""
    plain = text.replace("👍", "liked").replace("👎", "disliked").strip().rstrip(".")
    return f"{plain[:1].upper()}{plain[1:]}." if plain else ""


def percent(share: float) -> str:
    """Return a share as a whole percentage."""
    return f"{100 * share:.0f} %"


def number(value: float, digits: int = 0) -> str:
    """Return a figure with thousands kept apart by thin spaces."""
    return f"{value:,.{digits}f}".replace(",", "\u202f")


def plural(count: int, one: str, many: str = "") -> str:
    """Return a count with its noun."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def seconds(value: float | None) -> str:
    """Return a length of time in the unit that suits it."""
    if value is None:
        return "unknown"
    if value < 1:
        return f"{1000 * value:.0f} ms"
    if value < 2 * _MINUTE:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    return f"{value / _MINUTE:.0f} min" if value < 2 * _HOUR else f"{value / _HOUR:.1f} h"


def age(at: str, now: datetime | None = None) -> str:
    """Return how long ago a moment was, or its date."""
    moment = parse_time(at)
    past_s = ((now or datetime.now(UTC)) - moment).total_seconds()
    if past_s < _MINUTE:
        return "just now"
    for unit_s, name, most in ((_MINUTE, "min", 60), (_HOUR, "h", 24), (_DAY, "d", 14)):
        if past_s < unit_s * most:
            return f"{past_s / unit_s:.0f} {name} ago"
    return f"{moment:%Y-%m-%d}"
