"""Feedback: what people say of replies, checked and stored. Knows no face.

A vote is an upsert (the last one wins) and is stored when the call returns.
"""

from __future__ import annotations

from core.errors import Conflict, InvalidInput
from core.records import Feedback, Reply
from storage.aio import AsyncDatabase

REASONS = ("wrong", "rude", "too long", "off topic", "other")
MAX_REASON_CHARS = 100
MAX_CORRECTION_CHARS = 4000


class FeedbackService:
    """Votes, corrections and preferences. All methods run on the event loop."""

    def __init__(self, database: AsyncDatabase) -> None:
        self._database = database

    async def up(self, reply_id: str, person_id: str) -> Feedback:
        """Store a 👍, in place of an earlier 👎 of the same person."""
        await self._votable(reply_id)
        return await self._database.run(lambda db: db.feedback.vote(reply_id, person_id, "up"))

    async def down(self, reply_id: str, person_id: str, reason: str = "") -> Feedback:
        """Store a 👎, with a reason tag or a few words if given."""
        await self._votable(reply_id)
        reasons = (reason.strip()[:MAX_REASON_CHARS],) if reason.strip() else ()
        return await self._database.run(
            lambda db: db.feedback.vote(reply_id, person_id, "down", reasons=reasons)
        )

    async def withdraw(self, reply_id: str, person_id: str) -> bool:
        """Take a vote back; False if there was none."""
        return await self._database.run(lambda db: db.feedback.withdraw(reply_id, person_id))

    async def correct(self, reply_id: str, person_id: str, text: str) -> Feedback:
        """Store how the reply should have read. Raises InvalidInput if empty or unchanged."""
        reply = await self._votable(reply_id)
        clean = text.replace("\x00", "").strip()
        if not clean:
            raise InvalidInput("the correction is empty; write the reply as it should have been")
        if len(clean) > MAX_CORRECTION_CHARS:
            raise InvalidInput(
                f"the correction has {len(clean)} characters and {MAX_CORRECTION_CHARS} are allowed"
            )
        if clean == reply.text.strip():
            raise InvalidInput("the correction is the same as the reply; change it, or vote 👍")
        return await self._database.run(lambda db: db.feedback.correct(reply_id, person_id, clean))

    async def prefer(self, reply_id: str, person_id: str, over: str) -> Feedback:
        """Store that `reply_id` is the better of two. Both must be whole."""
        await self._votable(reply_id)
        await self._votable(over)
        return await self._database.run(lambda db: db.feedback.prefer(reply_id, person_id, over))

    async def _votable(self, reply_id: str) -> Reply:
        reply = await self._database.run(lambda db: db.replies.get(reply_id))
        if reply.state != "done":
            raise Conflict("this reply is not finished; wait for its end, then vote")
        return reply
