"""Do something on the other machine until it is done; a lost connection is waited out.

Knows nothing of what is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from trainer.launchers.connection import Connection
from trainer.launchers.faults import NoSuchHost, Unreachable

T = TypeVar("T")
_FIRST_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a lost connection is waited for: at first contact, in a run, to stop one."""

    first_s: float = 120.0
    run_s: float = 1800.0
    stop_s: float = 60.0
    longest_pause_s: float = 60.0


class Persistence:
    """Tries again over one connection, with growing pauses, and says so."""

    def __init__(
        self, connection: Connection, patience: Patience, say: Callable[[str], None]
    ) -> None:
        connection.heard = self._heard
        self._host = connection.address.host
        self._patience = patience
        self._say = say
        self._last_heard: float | None = None

    async def insist(self, work: Callable[[], Awaitable[T]], patience_s: float | None = None) -> T:
        """Do it; raises Unreachable once nothing was heard for so long, a run's patience by
        default.
        """
        clock = asyncio.get_running_loop().time
        began, pause = clock(), _FIRST_PAUSE_S
        allowed = self._patience.run_s if patience_s is None else patience_s
        while True:
            heard = self._last_heard
            try:
                return await work()
            except Unreachable as error:
                if self._last_heard != heard:
                    pause = _FIRST_PAUSE_S
                since = max(began, self._last_heard or began)
                strange = isinstance(error, NoSuchHost) and self._last_heard is None
                if clock() + pause - since > allowed or strange:
                    raise
                self._say(f"no connection to {self._host}; trying again")
            await asyncio.sleep(pause)
            pause = min(2 * pause, self._patience.longest_pause_s)

    def _heard(self) -> None:
        self._last_heard = asyncio.get_running_loop().time()
