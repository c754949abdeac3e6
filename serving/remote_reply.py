"""One reply that another machine writes: the request as it is sent, and what its events say.

Knows the wire, not the connection.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from core.errors import (
    EngineBusy,
    EngineStopped,
    InvalidInput,
    ThumbtuneError,
    UnknownAdapter,
)
from core.generation import FinishReason, GenerationRequest, GenerationResult

_UNKNOWN_TOKEN = -1
"""The wire counts tokens and does not name them."""
_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


@dataclass(slots=True, eq=False)
class RemoteReply:
    """A reply as it grows; `whole` once the last event was read."""

    request: GenerationRequest
    seed: int
    clock: Callable[[], float]
    text: str = ""
    reason: FinishReason = "error"
    whole: bool = False
    tokens: int = 0
    prompt_tokens: int = 0
    first_s: float | None = None
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock()

    def body(self) -> dict[str, Any]:
        """Return the request as the far side takes it."""
        sampling = self.request.sampling
        return {
            "model": self.request.adapter,
            "messages": [
                {"role": message.role, "content": message.content}
                for message in self.request.messages
            ],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "max_tokens": sampling.max_tokens,
            "seed": self.seed,
            "stop": list(sampling.stop),
        }

    def take(self, line: str) -> str:
        """Take a line of the stream; return the text it brought. Raises EngineStopped."""
        if not line.startswith("data: "):
            return ""
        data = line.removeprefix("data: ")
        if data == "[DONE]":
            self.whole = True
            return ""
        return self._event(json.loads(data))

    def result(self) -> GenerationResult:
        """Return the reply as it ended."""
        return GenerationResult(
            text=self.text,
            token_ids=(_UNKNOWN_TOKEN,) * self.tokens,
            adapter=self.request.adapter,
            finish_reason=self.reason,
            seed=self.seed,
            prompt_tokens=self.prompt_tokens,
            dropped_messages=0,
            first_token_s=self.first_s,
            total_s=self.clock() - self.started,
        )

    def _event(self, event: dict[str, Any]) -> str:
        if "error" in event:
            raise EngineStopped(str(event["error"]["message"]))
        if usage := event.get("usage"):
            self.tokens, self.prompt_tokens = usage["completion_tokens"], usage["prompt_tokens"]
        piece = ""
        for choice in event["choices"]:
            piece += choice["delta"].get("content") or ""
            self.reason = _REASONS.get(choice["finish_reason"], self.reason)
        if piece and self.first_s is None:
            self.first_s = self.clock() - self.started
        self.text += piece
        return piece


def refusal(url: str, answer: httpx.Response) -> ThumbtuneError:
    """Return what a refusal of the far side means here."""
    try:
        error: Any = answer.json()["error"]
        said, code = str(error["message"]), error["code"]
    except (ValueError, KeyError, TypeError):
        said, code = f"status {answer.status_code}", None
    if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
        return EngineBusy(1, 1)
    if answer.status_code in (401, 403):
        return EngineStopped(f"{url} takes no key of ours ({said}); set THUMBTUNE_REMOTE_KEY")
    if code == "model_not_found":
        return UnknownAdapter(f"{url}: {said}")
    if answer.status_code in (400, 413):
        return InvalidInput(f"{url}: {said}")
    return EngineStopped(f"{url}: {said}")
