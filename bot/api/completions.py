"""`POST /v1/chat/completions`: a chat in, replies out, each stored so that it can be voted on.

The client holds the history, so nothing is added to it here; requests that begin with the same
messages are one talk, which a canary answers to its end.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from bot.api.answers import (
    DONE,
    Heading,
    chunk,
    completion,
    error_event,
    event,
    finish_reason,
    usage_chunk,
)
from bot.api.caller import Authenticated, Caller, may_keep, person_of
from bot.api.errors import ApiError
from bot.api.models import adapter_of
from bot.api.schema import ChatRequest, read
from bot.api.state import ApiState, state_of
from bot.api.writing import Writing
from bot.memory import Ask
from core.errors import ThumbtuneError
from core.generation import Message
from core.records import Person, Reply

router = APIRouter()


@router.post("/v1/chat/completions")
async def complete(request: Request, caller: Authenticated) -> Response:
    """Answer a chat, whole or as a stream."""
    state = state_of(request)
    asked = await read(request, ChatRequest)
    ask = await _ask(state, caller, asked)
    choices = await Writing.begin(state, ask, asked.n or 1, request.receive)
    if asked.stream:
        options = asked.stream_options
        return CompletionStream(choices, with_usage=bool(options and options.include_usage))
    try:
        replies = await choices.finished()
        return JSONResponse(completion(Heading.of(replies), replies))
    finally:
        await choices.close()


class CompletionStream(Response):
    """A completion as server-sent events; its replies have begun when it is made."""

    def __init__(self, choices: Writing, *, with_usage: bool) -> None:
        super().__init__(media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._choices = choices
        self._with_usage = with_usage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events, and free what the replies hold."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with aclosing(self._events()) as events:
                async for text in events:
                    await send({"type": "http.response.body", "body": text, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await self._choices.close()

    async def _events(self) -> AsyncGenerator[bytes, None]:
        heading = Heading.of(self._choices.replies)
        ended: list[Reply] = []
        for index in range(len(heading.choices)):
            yield event(chunk(heading, index, {"role": "assistant", "content": ""}))
        try:
            async with aclosing(self._choices.pieces()) as pieces:
                async for index, piece in pieces:
                    if isinstance(piece, ThumbtuneError):
                        raise piece
                    if isinstance(piece, str):
                        yield event(chunk(heading, index, {"content": piece}))
                        continue
                    ended.append(piece)
                    yield event(chunk(heading, index, {}, finish_reason(piece)))
        except (ApiError, ThumbtuneError) as error:
            yield error_event(error)
            return
        if self._with_usage:
            yield event(usage_chunk(heading, ended))
        yield DONE


async def _ask(state: ApiState, caller: Caller, asked: ChatRequest) -> Ask:
    """Turn a request into a question to the chat. Raises ApiError."""
    chat, context = state.world.chat, state.world.settings.serving.max_context_tokens
    prompt = asked.prompt(context)
    sampling = asked.sampling(chat.sampling(), context)
    adapter = await adapter_of(state, caller, asked.model)
    person = await person_of(state, caller, asked.user)
    if prompt[0].role != "system":
        prompt = (*await chat.persona(caller.scope), *prompt)
    return Ask(
        scope=caller.scope,
        conversation_id=await chat.open(caller.scope, person, _talk(state, person, prompt)),
        prompt=prompt,
        authors=(person.id,),
        sampling=sampling,
        kept=may_keep(person),
        adapter=adapter,
        in_history=False,
    )


def _talk(state: ApiState, person: Person, prompt: Sequence[Message]) -> str:
    """Name the talk that begins so, in a way that tells nobody how it begins.

    The salt is this process's own: after a restart a talk that goes on counts as another one.
    """
    first = next(index for index, message in enumerate(prompt) if message.role == "user")
    digest = hmac.new(state.salt, digestmod=hashlib.sha256)
    for message in prompt[: first + 1]:
        digest.update(f"{message.role}\0{message.content}\0".encode())
    return f"api/{person.id}/{digest.hexdigest()[:32]}"
