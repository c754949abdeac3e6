"""Failures that a test asks for: bad answers, cut connections, slowness; and the log of requests.

Invariant: a fault is used up exactly as often as it was asked for, by the next requests that match.
Whether a connection is cut before or after the request took effect is the fault's `closes`.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.discord_double.patterns import matches
from tests.discord_double.records import Json

BEFORE, AFTER = "before", "after"


@dataclass(slots=True)
class Fault:
    """What to do with the next `times` requests on the routes that `method` and `pattern` name."""

    method: str
    pattern: str
    times: int
    status: int = 500
    code: int = 0
    message: str = ""
    retry_after_s: float = 1.0
    closes: str | None = None


@dataclass(frozen=True, slots=True)
class Delay:
    """How long requests on some routes wait before anything is done."""

    method: str
    pattern: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that came, and the status that was answered (0: cut off)."""

    method: str
    path: str
    status: int
    at: float
    body: Json


class Faults:
    """The faults still to come."""

    def __init__(self) -> None:
        self._coming: list[Fault] = []
        self._delays: list[Delay] = []

    def add(self, fault: Fault) -> None:
        """Let `fault` happen."""
        self._coming.append(fault)

    def slow_down(self, delay: Delay) -> None:
        """Let requests wait from now on; a later delay on the same routes replaces this one."""
        self._delays.insert(0, delay)

    def next_for(self, method: str, path: str) -> Fault | None:
        """The fault that this request runs into, used up by once."""
        for fault in self._coming:
            if fault.times > 0 and matches(fault.method, fault.pattern, method, path):
                fault.times -= 1
                return fault
        return None

    def delay_s(self, method: str, path: str) -> float:
        """How long this request waits."""
        for delay in self._delays:
            if matches(delay.method, delay.pattern, method, path):
                return delay.seconds
        return 0.0
