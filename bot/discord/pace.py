"""When the next edit of a message is well paced, by what the server answered to the last one.

Owns, for each channel or webhook, the moment of the next edit: what remains of the rate limit is
spread evenly over the time until it resets, so that edits come smoothly and not in a burst before
a pause. Knows no rate of its own: an unknown key is ready at once, and an exhausted limit is
waited out by discord.py itself.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace

import aiohttp

KEYS_KEPT = 1024
"""More channels than are edited at one time; the key unused for longest is dropped first."""
_EDIT = re.compile(r"(/channels/\d+|/webhooks/\d+/[^/]+)/messages/")


@dataclass(slots=True)
class _Window:
    """One key's rate limit as last answered; moments on the pace's clock, in seconds."""

    next_at: float
    gap_s: float
    ends_at: float


class EditPace:
    """Paces edits of messages. All methods run on the event loop; `clock` is monotonic."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def __len__(self) -> int:
        return len(self._windows)

    def trace_config(self) -> aiohttp.TraceConfig:
        """What reads the answers: give it to `discord.Client(http_trace=...)`."""
        config = aiohttp.TraceConfig()
        config.on_request_end.append(self._answered)
        return config

    async def ready(self, key: str) -> None:
        """Wait until the key's next edit is due, and take that turn; at once if none is known.

        Editors that wait at the same time line up behind one another.
        """
        window, now = self._windows.get(key), self._clock()
        if window is None:
            return
        if now >= max(window.ends_at, window.next_at):
            del self._windows[key]
            return
        turn = max(now, window.next_at)
        window.next_at = turn + window.gap_s
        if turn > now:
            await self._sleep(turn - now)

    async def _answered(
        self,
        session: aiohttp.ClientSession,
        context: SimpleNamespace,
        params: aiohttp.TraceRequestEndParams,
    ) -> None:
        edit = _EDIT.search(params.url.path)
        if params.method != "PATCH" or edit is None:
            return
        headers = params.response.headers
        gap_s, length_s = _limited(headers) if params.response.status == 429 else _spread(headers)
        if gap_s is not None and length_s is not None:
            self._remember(edit.group(1), gap_s, length_s)

    def _remember(self, key: str, gap_s: float, length_s: float) -> None:
        now = self._clock()
        self._windows[key] = _Window(next_at=now + gap_s, gap_s=gap_s, ends_at=now + length_s)
        self._windows.move_to_end(key)
        while len(self._windows) > KEYS_KEPT:
            self._windows.popitem(last=False)


def channel_key(channel_id: int) -> str:
    """The key of edits of a channel's messages."""
    return f"/channels/{channel_id}"


def webhook_key(application_id: int, token: str) -> str:
    """The key of edits of an interaction's (or a webhook's) messages."""
    return f"/webhooks/{application_id}/{token}"


def _spread(headers: Mapping[str, str]) -> tuple[float | None, float | None]:
    """The gap that spreads the edits left over the time left, and that time, in seconds."""
    remaining = _number(headers, "X-RateLimit-Remaining")
    reset_after_s = _number(headers, "X-RateLimit-Reset-After")
    if remaining is None or reset_after_s is None:
        return None, None
    return reset_after_s / (remaining + 1), reset_after_s


def _limited(headers: Mapping[str, str]) -> tuple[float | None, float | None]:
    """After a refusal: nothing before the time the server named."""
    named = [_number(headers, name) for name in ("Retry-After", "X-RateLimit-Reset-After")]
    wait_s = max((value for value in named if value is not None), default=None)
    return wait_s, wait_s


def _number(headers: Mapping[str, str], name: str) -> float | None:
    try:
        value = float(headers[name])
    except (KeyError, ValueError):
        return None
    return max(0.0, value) if math.isfinite(value) else None
