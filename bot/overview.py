"""How a scope is doing: votes over time, how each adapter is liked, speed, queue, errors, disk.

Read anew at each call, from the database, the engine's counters and the file system. Knows no face.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bot.adapters import Shelf, shelf
from bot.world import World
from core.generation import EngineStats
from core.intervals import wilson
from core.records import Reply, utc_text
from storage.database import Database

DAYS = 30
RECENT_REPLIES = 300
"""The newest replies that speed is read from."""


@dataclass(frozen=True, slots=True)
class Day:
    """The thumbs of one day, by its ISO date."""

    day: str
    up: int
    down: int


@dataclass(frozen=True, slots=True)
class Liked:
    """How one adapter is liked: the share of its thumbs that are up, with its 95 % interval."""

    adapter: str
    up: int
    down: int
    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Speed:
    """Of the newest replies: medians, and the 95th percentile of the first token's wait, seconds.

    None where nothing was written yet.
    """

    replies: int
    first_token_s: float | None
    slow_first_token_s: float | None
    tokens_per_s: float | None


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes held by each part of the data directory, and bytes free beside it."""

    parts: tuple[tuple[str, int], ...]
    free: int


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything at a glance; `states` counts the last 7 days' replies by state."""

    days: tuple[Day, ...]
    liked: tuple[Liked, ...]
    speed: Speed
    engine: EngineStats
    states: dict[str, int]
    disk: Disk


async def look(world: World, scope: str, *, now: datetime | None = None) -> Overview:
    """Read how a scope is doing."""
    moment = now or datetime.now(UTC)
    since = moment - timedelta(days=DAYS - 1)
    week = utc_text(moment - timedelta(days=7))

    def read(db: Database) -> tuple[list[tuple[str, int, int]], list[Reply], dict[str, int]]:
        days = db.feedback.by_day(scope, since=f"{since:%Y-%m-%d}")
        return days, db.replies.recent(scope, RECENT_REPLIES), db.replies.states(scope, since=week)

    days, replies, states = await world.database.run(read)
    stand = await shelf(world.database, scope)
    return Overview(
        days=_every_day(days, since, moment),
        liked=tuple(liked(name, up, down) for name, up, down in _rates(stand)),
        speed=_speed(replies),
        engine=world.engine.stats(),
        states=states,
        disk=await asyncio.to_thread(_disk, world.settings.data_dir),
    )


def liked(adapter: str, up: int, down: int) -> Liked:
    """Return how an adapter with these thumbs is liked."""
    low, high = wilson(up, up + down)
    share = up / (up + down) if up + down else 0.0
    return Liked(adapter, up, down, share, low, high)


def _rates(stand: Shelf) -> list[tuple[str, int, int]]:
    """Return the thumbs of each version, and last those on what was written elsewhere."""
    known = {name for name, _, _ in stand.rates}
    others = [(name, *likes) for name, likes in stand.likes.items() if name not in known]
    return [*stand.rates, *others]


def _every_day(
    counted: Sequence[tuple[str, int, int]], first: datetime, last: datetime
) -> tuple[Day, ...]:
    """Return each day from first to last, also those without a thumb."""
    known = {day: (up, down) for day, up, down in counted}
    names = [f"{first + timedelta(days=n):%Y-%m-%d}" for n in range((last - first).days + 1)]
    return tuple(Day(name, *known.get(name, (0, 0))) for name in names)


def _speed(replies: Sequence[Reply]) -> Speed:
    firsts = sorted(r.first_token_s for r in replies if r.first_token_s is not None)
    rates = [
        (r.tokens - 1) / (r.total_s - r.first_token_s)
        for r in replies
        if r.tokens > 1 and r.total_s and r.first_token_s and r.total_s > r.first_token_s
    ]
    return Speed(
        replies=len(rates),
        first_token_s=statistics.median(firsts) if firsts else None,
        slow_first_token_s=firsts[int(0.95 * (len(firsts) - 1))] if firsts else None,
        tokens_per_s=statistics.median(rates) if rates else None,
    )


def _disk(data_dir: Path) -> Disk:
    names = ("models", "adapters", "runs")
    parts = [(name, _bytes_in(data_dir / name)) for name in names]
    files = [path for path in data_dir.iterdir() if path.is_file()]
    parts.insert(0, ("database", sum(path.stat().st_size for path in files)))
    return Disk(tuple(parts), shutil.disk_usage(data_dir).free)


def _bytes_in(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
