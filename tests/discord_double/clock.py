"""The double's time and its ids.

Invariant: ids grow, and each holds the moment it was made, as Discord's snowflakes do. A test moves
the clock ahead to see a token expire without waiting; heartbeats and windows of rate limits do not
use it.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

DISCORD_EPOCH_MS = 1_420_070_400_000


class Clock:
    """The wall clock, which a test may move ahead."""

    def __init__(self) -> None:
        self._ahead_s = 0.0
        self._last_id = 0

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time() + self._ahead_s

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass at once."""
        self._ahead_s += seconds

    def next_id(self) -> int:
        """A snowflake larger than all before it."""
        made = (int(self.now() * 1000) - DISCORD_EPOCH_MS) << 22
        self._last_id = max(made, self._last_id + 1)
        return self._last_id

    def next_id_on(self, shard: int, count: int) -> int:
        """A snowflake larger than all before it, of a server on this of so many shards."""
        made = self.next_id() >> 22
        self._last_id = (made + 1 + (shard - made - 1) % count) << 22
        return self._last_id


def iso(at: float) -> str:
    """`at` as Discord writes timestamps."""
    return datetime.fromtimestamp(at, UTC).isoformat()
