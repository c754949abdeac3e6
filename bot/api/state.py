"""What the routes of one API share: the world, its figures, and the replies being written.

Invariant: a reply is in `running` from its start to its end, so that a stop can wait for it.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field

from fastapi import Request

from bot.api.metrics import Metrics
from bot.api.readiness import Readiness
from bot.chat import ReplyInProgress
from bot.world import World
from core.records import Reply

GRACE_S = 3.0
"""How long replies may still be written when the process is told to stop."""


@dataclass(slots=True, eq=False)
class ApiState:
    """One per application; `private` says that only this machine can reach it.

    `closing` refuses new replies; `salt` makes talks' keys unguessable.
    """

    world: World
    private: bool
    metrics: Metrics = field(default_factory=Metrics)
    running: dict[ReplyInProgress, asyncio.Future[Reply]] = field(default_factory=dict)
    closing: bool = False
    salt: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    readiness: Readiness = field(init=False)

    def __post_init__(self) -> None:
        self.readiness = Readiness(self.world)

    def follow(self, one: ReplyInProgress) -> None:
        """Hold a reply until it has ended, then count it."""

        def ended(end: asyncio.Future[Reply]) -> None:
            self.running.pop(one, None)
            if not end.cancelled() and end.exception() is None:
                self.metrics.count_reply(end.result())

        end = self.running[one] = asyncio.ensure_future(one.finished())
        end.add_done_callback(ended)

    async def settle(self, grace_s: float = GRACE_S) -> None:
        """Take no more replies, let those being written end within `grace_s`, then cut them."""
        self.closing = True
        waiting = list(self.running.values())
        if not waiting:
            return
        await asyncio.wait(waiting, timeout=grace_s)
        for one in list(self.running):
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


def state_of(request: Request) -> ApiState:
    """Return what the application of a request shares."""
    state: ApiState = request.app.state.api
    return state
