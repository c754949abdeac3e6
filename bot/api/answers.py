"""What a completion looks like on the wire: OpenAI's objects, whole or in chunks.

Each choice carries an `id` of its own, the stored reply's: that is what feedback names. The
completion's own id is its first choice's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bot.api.errors import ApiError, plain
from core.errors import ThumbtuneError
from core.records import Reply, parse_time

DONE = b"data: [DONE]\n\n"
_FINISH = {"stop": "stop", "length": "length", "deadline": "length"}


@dataclass(frozen=True, slots=True)
class Heading:
    """What every object of one completion has in common; `choices` are the replies' ids."""

    choices: tuple[str, ...]
    model: str
    created: int

    @classmethod
    def of(cls, replies: Sequence[Reply]) -> Heading:
        """Return the heading of these replies; the first one's adapter is the model."""
        first = replies[0]
        created = int(parse_time(first.at).timestamp())
        return cls(tuple(reply.id for reply in replies), first.adapter, created)

    def fields(self, kind: str) -> dict[str, Any]:
        """Return the fields in common, for an object of this kind."""
        return {"id": self.choices[0], "object": kind, "created": self.created, "model": self.model}


def completion(heading: Heading, replies: Sequence[Reply]) -> dict[str, Any]:
    """Return a whole completion. Raises ApiError for a reply that was cut off."""
    return {
        **heading.fields("chat.completion"),
        "choices": [
            {
                "index": index,
                "id": reply.id,
                "message": {"role": "assistant", "content": reply.text, "refusal": None},
                "logprobs": None,
                "finish_reason": finish_reason(reply),
            }
            for index, reply in enumerate(replies)
        ],
        "usage": usage(replies),
    }


def chunk(
    heading: Heading, index: int, delta: dict[str, str], reason: str | None = None
) -> dict[str, Any]:
    """Return one piece of one choice."""
    choice = {
        "index": index,
        "id": heading.choices[index],
        "delta": delta,
        "logprobs": None,
        "finish_reason": reason,
    }
    return {**heading.fields("chat.completion.chunk"), "choices": [choice]}


def usage_chunk(heading: Heading, replies: Sequence[Reply]) -> dict[str, Any]:
    """Return the chunk after the last one, which only counts."""
    return {**heading.fields("chat.completion.chunk"), "choices": [], "usage": usage(replies)}


def usage(replies: Sequence[Reply]) -> dict[str, int]:
    """Count tokens: the prompt once, all choices' together."""
    prompt = replies[0].prompt_tokens
    written = sum(reply.tokens for reply in replies)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
    }


def finish_reason(reply: Reply) -> str:
    """Return OpenAI's word for how a reply ended. Raises ApiError if it was cut off."""
    word = _FINISH.get(reply.finish_reason or "")
    if word is None:
        raise ApiError(
            503, "the reply was cut off: the service stops or failed", kind="server_error"
        )
    return word


def event(data: dict[str, Any]) -> bytes:
    """Return an object as a server-sent event."""
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def error_event(error: ApiError | ThumbtuneError) -> bytes:
    """Return what a stream says instead of going on."""
    return event((error if isinstance(error, ApiError) else plain(error)).body())
