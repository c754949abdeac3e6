"""What a request for a chat completion may say, and what it means to the engine.

A field of OpenAI's API that would change the reply and that this model cannot honour is refused by
name; what changes nothing is ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bot.api.errors import ApiError, invalid
from bot.chat import storable
from core.generation import Message, Role, Sampling

MAX_MESSAGES = 1000
MAX_CHOICES = 8
MAX_STOPS = 16
MAX_STOP_CHARS = 200
CHARS_A_TOKEN = 32
"""No text has so many characters a token: more is longer than the context whatever it says."""
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "audio": (None,),
    "best_of": (None, 1),
    "frequency_penalty": (None, 0),
    "function_call": (None, "none", "auto"),
    "functions": (None, []),
    "logit_bias": (None, {}),
    "logprobs": (None, False),
    "min_p": (None, 0),
    "modalities": (None, ["text"]),
    "presence_penalty": (None, 0),
    "repetition_penalty": (None, 1),
    "response_format": (None, {"type": "text"}),
    "tool_choice": (None, "none", "auto"),
    "tools": (None, []),
    "top_logprobs": (None, 0),
    "web_search_options": (None,),
}
"""Fields that this model cannot honour, and the values that ask for nothing."""
_MESSAGE_NEUTRAL: dict[str, tuple[object, ...]] = {
    "audio": (None,),
    "function_call": (None,),
    "tool_calls": (None, []),
}

Body = TypeVar("Body", bound=BaseModel)
Whole = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    """A body whose types are meant; unknown fields are kept aside."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, allow_inf_nan=False)

    def refuse(self, neutral: dict[str, tuple[object, ...]], where: str = "") -> None:
        """Refuse fields that ask for what cannot be done."""
        for name, value in (self.model_extra or {}).items():
            if name in neutral and value not in neutral[name]:
                raise ApiError(
                    400,
                    f"{where}{name} is not supported by this model; leave it out",
                    param=f"{where}{name}",
                    code="unsupported_parameter",
                )


class ChatMessage(Strict):
    """One message as clients send it."""

    role: str
    content: str | list[Any] | None = None


class StreamOptions(Strict):
    """What a stream tells beside the text."""

    include_usage: bool | None = None


class ChatRequest(Strict):
    """The body of `POST /v1/chat/completions`."""

    model: str
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: str | list[str] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    max_tokens: Whole | None = None
    max_completion_tokens: Whole | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    user: str | None = None

    def prompt(self, context_tokens: int) -> tuple[Message, ...]:
        """Return the messages as the engine takes them. Raises ApiError."""
        self.refuse(_NEUTRAL)
        found = tuple(_message(index, one) for index, one in enumerate(self.messages))
        if found[-1].role != "user" or not found[-1].content.strip():
            raise invalid("the last message must be the user's, and not empty", "messages")
        size = sum(len(message.content) for message in found)
        if size > CHARS_A_TOKEN * context_tokens:
            raise ApiError(
                400,
                f"the messages have {size} characters; this model reads {context_tokens} tokens",
                param="messages",
                code="context_length_exceeded",
            )
        return found

    def sampling(self, usual: Sampling, context_tokens: int) -> Sampling:
        """Return how tokens are drawn; what is not said is as usual. Raises ApiError."""
        asked = self.max_completion_tokens or self.max_tokens or usual.max_tokens
        return Sampling(
            temperature=usual.temperature if self.temperature is None else self.temperature,
            top_p=usual.top_p if self.top_p is None else self.top_p,
            top_k=usual.top_k if self.top_k is None else self.top_k,
            max_tokens=min(asked, context_tokens),
            seed=self.seed,
            stop=self._stops(),
        )

    def _stops(self) -> tuple[str, ...]:
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        stops = tuple(storable(one) for one in given)
        if len(stops) > MAX_STOPS or any(not 0 < len(one) <= MAX_STOP_CHARS for one in stops):
            raise invalid(
                f"stop: expected at most {MAX_STOPS} strings of 1 to {MAX_STOP_CHARS} characters",
                "stop",
            )
        return stops


async def read(request: Request, shape: type[Body]) -> Body:
    """Read a request's JSON body; raises ApiError naming the first thing that is wrong."""
    body = await request.body()
    try:
        return shape.model_validate_json(body)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        message = f"{where}: {fault['msg']}" if where else str(fault["msg"])
        raise invalid(storable(message)[:500], where[:100] or None) from None


def _message(index: int, message: ChatMessage) -> Message:
    where = f"messages.{index}."
    role = _ROLES.get(message.role)
    if role is None:
        raise invalid(
            f"{where}role: {message.role[:50]!r} is not supported; expected system, user or "
            "assistant",
            f"{where}role",
        )
    message.refuse(_MESSAGE_NEUTRAL, where)
    content = message.content
    if content is None:
        raise invalid(f"{where}content: missing; expected text", f"{where}content")
    parts = [content] if isinstance(content, str) else [_text(where, part) for part in content]
    return Message(role, storable("".join(parts)))


def _text(where: str, part: object) -> str:
    text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
    if isinstance(text, str):
        return text
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    raise invalid(
        f"{where}content: parts of the type {str(kind)[:50]!r} are not supported; this model "
        "reads text only",
        f"{where}content",
    )
