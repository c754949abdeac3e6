"""One interaction: what a person did, when the bot acknowledged it, and what it answered.

Invariant: it is acknowledged at most once, within 3 s of its dispatch, and its token lives for 15
min of the double's clock. The times of an acknowledgement are real ones. Knows no JSON and no
sockets.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from dataclasses import dataclass, field

from tests.discord_double.errors import ApiError, unknown
from tests.discord_double.records import LOADING, Channel, Json, Message, User

FIRST_RESPONSE_S = 3.0
TOKEN_LIFE_S = 15 * 60.0

COMMAND, COMPONENT, MODAL_SUBMIT = 2, 3, 5
"""Types of interactions."""

SEND, DEFER, DEFER_UPDATE, UPDATE, MODAL = 4, 5, 6, 7, 9
"""Types of callbacks."""


@dataclass(frozen=True, slots=True)
class Response:
    """What the person sees as the answer at the moment of looking."""

    content: str
    ephemeral: bool
    components: list[Json]
    embeds: list[Json]
    modal: Json | None
    message: Message | None


@dataclass(slots=True, eq=False)
class Interaction:
    """A press, a command or a submitted form on its way; `await` it for a visible answer."""

    id: int
    token: str
    kind: int
    user: User
    channel: Channel
    data: Json
    created_at: float
    source: Message | None = None
    sent_at: float = field(default_factory=time.monotonic)
    acknowledged_after_s: float | None = None
    refused_after_s: list[float] = field(default_factory=list)
    callback_type: int | None = None
    original: Message | None = None
    modal: Json | None = None
    followups: list[Message] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def response(self) -> Response | None:
        """The first answer as it stands now; None before the bot acknowledged."""
        if self.callback_type is None:
            return None
        shown = self.original
        if shown is None:
            return Response("", False, [], [], self.modal, None)
        parts = (shown.content, shown.ephemeral, shown.components, shown.embeds)
        return Response(*parts, self.modal, shown)

    @property
    def acknowledged(self) -> bool:
        """Whether the bot has answered in any way."""
        return self.callback_type is not None

    @property
    def shown(self) -> bool:
        """Whether the person has been given something better than a spinner."""
        if self.callback_type == DEFER_UPDATE:
            return True
        waiting = self.original is not None and bool(self.original.flags & LOADING)
        return self.acknowledged and not waiting

    async def until_acknowledged(self, *, timeout_s: float = 10.0) -> Interaction:
        """Wait for the bot's callback."""
        return await self._until("acknowledged", timeout_s)

    async def until_shown(self, *, timeout_s: float = 10.0) -> Interaction:
        """Wait for an answer that is no spinner."""
        return await self._until("shown", timeout_s)

    async def until_followups(self, count: int, *, timeout_s: float = 10.0) -> list[Message]:
        """Wait for `count` further messages."""
        async with asyncio.timeout(timeout_s):
            while len(self.followups) < count:
                await self._change()
        return self.followups

    def __await__(self) -> Generator[None, None, Interaction]:
        return self.until_shown().__await__()

    # -- the bot's side

    def acknowledge(self, callback_type: int) -> None:
        """Take the bot's first response, or refuse a second or a late one as Discord does."""
        elapsed = time.monotonic() - self.sent_at
        if self.acknowledged:
            raise ApiError(400, 40060, "Interaction has already been acknowledged.")
        if elapsed > FIRST_RESPONSE_S:
            self.refused_after_s.append(elapsed)
            raise unknown(10062, "interaction")
        self.callback_type = callback_type
        self.acknowledged_after_s = elapsed

    def check_token(self, now: float) -> None:
        """Refuse when the token's 15 minutes are over, or before the first response."""
        if now - self.created_at > TOKEN_LIFE_S:
            raise ApiError(401, 50027, "Invalid Webhook Token")
        if not self.acknowledged:
            raise unknown(10015, "Webhook")

    def note_change(self) -> None:
        """Wake whoever waits for an answer."""
        self.changed.set()

    async def _until(self, state: str, timeout_s: float) -> Interaction:
        try:
            async with asyncio.timeout(timeout_s):
                while not getattr(self, state):
                    await self._change()
        except TimeoutError:
            raise TimeoutError(
                f"interaction {self.data} was not {state} within {timeout_s} s; "
                f"the bot's last callback type: {self.callback_type}"
            ) from None
        return self

    async def _change(self) -> None:
        self.changed.clear()
        await self.changed.wait()
