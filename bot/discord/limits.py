"""How often a person may ask: a sliding window for each key, in bounded memory.

Owns the times of what was allowed in the last `per_s` seconds. A refusal costs nothing: to ask
again too soon does not lengthen the wait. Does not know who the keys are nor what is asked.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from core.errors import InvalidInput

KEYS_KEPT = 10_000
"""Far more than the people active within one window; the longest idle is dropped first."""


@dataclass(slots=True)
class _Key:
    taken: deque[float] = field(default_factory=deque)
    told_at: float | None = None


class RateLimit:
    """At most `limit` takes a key within any `per_s` seconds. Not thread-safe.

    Raises InvalidInput unless limit is at least 1 and per_s above 0.
    """

    def __init__(
        self, limit: int, per_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if limit < 1 or per_s <= 0:
            raise InvalidInput(
                f"a rate limit of {limit} in {per_s} s cannot be kept; "
                "use at least 1 in more than 0 s"
            )
        self._limit = limit
        self._per_s = per_s
        self._clock = clock
        self._keys: OrderedDict[str, _Key] = OrderedDict()

    def __len__(self) -> int:
        return len(self._keys)

    def take(self, key: str) -> float:
        """Take one: 0.0 if it is allowed, else the seconds until one will be."""
        now, entry = self._clock(), self._touch(key)
        while entry.taken and entry.taken[0] <= now - self._per_s:
            entry.taken.popleft()
        if len(entry.taken) >= self._limit:
            return max(entry.taken[0] + self._per_s - now, 1e-3)
        entry.taken.append(now)
        return 0.0

    def first_refusal(self, key: str) -> bool:
        """After a refusal: true once in `per_s` seconds, so that a person is told once."""
        now, entry = self._clock(), self._touch(key)
        if entry.told_at is not None and now < entry.told_at + self._per_s:
            return False
        entry.told_at = now
        return True

    def _touch(self, key: str) -> _Key:
        entry = self._keys.setdefault(key, _Key())
        self._keys.move_to_end(key)
        while len(self._keys) > KEYS_KEPT:
            self._keys.popitem(last=False)
        return entry
