"""`POST /v1/feedback`: what people say of completions, by the completion's or the choice's id.

Saying the same again changes nothing. A completion of another scope is as unknown as one that never
was.
"""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request

from bot.api.caller import Authenticated, Caller, person_of
from bot.api.errors import ApiError, invalid
from bot.api.schema import Strict, read
from bot.api.state import ApiState, state_of
from bot.chat import storable
from core.errors import NotFound
from core.records import Feedback, Person

router = APIRouter()


class FeedbackRequest(Strict):
    """The body: `reason` goes with `down`, `text` with `correction`, `over` with `preference`."""

    id: str
    kind: Literal["up", "down", "withdraw", "correction", "preference"]
    reason: str | None = None
    text: str | None = None
    over: str | None = None
    user: str | None = None


@router.post("/v1/feedback")
async def give_feedback(request: Request, caller: Authenticated) -> dict[str, Any]:
    """Store a vote, a correction or a preference; or take a vote back."""
    state = state_of(request)
    said = await read(request, FeedbackRequest)
    _complete(said)
    for completion in (said.id, said.over):
        if completion is not None:
            await _within_reach(state, caller, completion)
    person = await person_of(state, caller, said.user)
    row = await _store(state, said, person)
    return {
        "object": "thumbtune.feedback",
        "completion_id": said.id,
        "kind": said.kind,
        "id": row.id if row else None,
    }


def _complete(said: FeedbackRequest) -> None:
    if said.kind == "correction" and not said.text:
        raise invalid("text: expected the reply as it should have been", "text")
    if said.kind == "preference" and not said.over:
        raise invalid("over: expected the id of the completion that lost", "over")


async def _within_reach(state: ApiState, caller: Caller, completion: str) -> None:
    """Refuse a completion that is not there, or belongs to another scope."""
    try:
        reply = await state.world.database.run(lambda db: db.replies.get(storable(completion)))
    except NotFound:
        reply = None
    if reply is None or (reply.scope != caller.scope and not caller.admin):
        raise ApiError(
            404, f"there is no completion {completion[:100]!r}", param="id", code="not_found"
        )


async def _store(state: ApiState, said: FeedbackRequest, person: Person) -> Feedback | None:
    feedback = state.world.feedback
    match said.kind:
        case "up":
            return await feedback.up(said.id, person.id)
        case "down":
            return await feedback.down(said.id, person.id, storable(said.reason or ""))
        case "correction":
            return await feedback.correct(said.id, person.id, storable(said.text or ""))
        case "preference":
            return await feedback.prefer(said.id, person.id, over=said.over or "")
        case "withdraw":
            await feedback.withdraw(said.id, person.id)
            return None
