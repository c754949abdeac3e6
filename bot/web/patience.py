"""Connections that send nothing, or too slowly, lose their place: HTTP with bounded patience.

Invariant: a request is whole within `WHOLE_S` of the connection or of its first byte, or its body
comes at `SLOWEST_BYTES_S` at least, or the connection is closed; of more than `MOST_OPEN`
connections the longest idle one makes room. What an application answers, and how long it takes, is
not looked at.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

WHOLE_S = 20.0
"""How long a request, head and body, may take to arrive."""
SLOWEST_BYTES_S = 16 * 1024
"""A body that comes at this pace may take as long as it takes: an adapter over a slow line."""
MOST_OPEN = 512
"""Connections at once: well under the 1,024 files that a process may usually open."""


class PatientProtocol(H11Protocol):
    """One connection. `waiting_since` (loop time) is when it last had nothing to do."""

    waiting_since = 0.0
    _timer: asyncio.TimerHandle | None = None
    _arrived_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Read what came, and count it."""
        self._arrived_bytes += len(data)
        super().data_received(data)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, if there is room or room can be made."""
        super().connection_made(transport)
        self.waiting_since = self.loop.time()
        self._watch()
        if len(self.connections) > MOST_OPEN:
            idle = [one for one in self.connections if isinstance(one, PatientProtocol)]
            idle = [one for one in idle if one is not self and one.idle]
            victim = min(idle, key=lambda one: one.waiting_since, default=self)
            victim.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the timer with the connection."""
        self._unwatch()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Read what came; the clock runs as long as a request is begun and not whole."""
        super().handle_events()
        self._watch()

    def on_response_complete(self) -> None:
        """Go on with the next request."""
        self.waiting_since = self.loop.time()
        super().on_response_complete()
        self._watch()

    @property
    def idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _watch(self) -> None:
        """Start or stop the clock by what the connection waits for."""
        if not self._waits_for_the_rest():
            self._unwatch()
        elif self._timer is None:
            self._arrived_bytes = 0
            self._timer = self.loop.call_later(WHOLE_S, self._give_up)

    def _waits_for_the_rest(self) -> bool:
        state: Any = self.conn.their_state
        if state is h11.SEND_BODY:
            return True
        begun = self.cycle is None or bool(self.conn.trailing_data[0])
        return state is h11.IDLE and begun  # an idle connection with a past has its own timer

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        steady = self._arrived_bytes >= SLOWEST_BYTES_S * WHOLE_S
        if steady and self.conn.their_state is h11.SEND_BODY:
            self._watch()
        else:
            self.transport.close()
