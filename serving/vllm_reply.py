"""One reply that vLLM writes: what is asked, what its chunks say, what its refusals mean.

Knows vLLM's words, as version 0.33.0 says them (docs/vllm.md), not the connection.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from core.errors import EngineBusy, EngineStopped, InvalidInput, ThumbtuneError, UnknownAdapter
from core.generation import GenerationResult, Message
from serving.prompt import Prompt
from serving.remote_reply import RemoteReply, refusal

_PLAIN = {
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""What vLLM would else take from the model's generation_config.json, which nothing here does."""


@dataclass(slots=True, eq=False)
class VllmReply(RemoteReply):
    """A reply as it grows. `model` is the name that every chunk must bear, `prompt` what is read;
    both are set before it is asked for.
    """

    model: str = ""
    prompt: Prompt | None = None
    max_context: int = 0
    token_ids: list[int] = field(default_factory=list)
    read_otherwise: bool = False
    """Whether the far side read other tokens than ours; they may differ where a text was cut."""
    fingerprint: str | None = None

    def body(self) -> dict[str, Any]:
        """Return the request as vLLM takes it."""
        assert self.prompt is not None  # noqa: S101 - set by whoever asks
        room = max(1, self.max_context - len(self.prompt.token_ids))
        own = {
            "model": self.model,
            "messages": as_sent(self.prompt.messages),
            "max_tokens": min(self.request.sampling.max_tokens, room),
            "return_token_ids": True,
        }
        return {**RemoteReply.body(self), **_PLAIN, **own}

    def result(self) -> GenerationResult:
        """Return the reply as it ended, with the tokens that were told."""
        told = RemoteReply.result(self)
        whole = len(self.token_ids) == self.tokens
        return replace(
            told,
            token_ids=tuple(self.token_ids) if whole else told.token_ids,
            dropped_messages=self.prompt.dropped_messages if self.prompt else 0,
        )

    def _event(self, event: dict[str, Any]) -> str:
        if "error" not in event:
            self._take_tokens(event)
        return RemoteReply._event(self, event)

    def _take_tokens(self, event: dict[str, Any]) -> None:
        """Take the tokens of a chunk; raises UnknownAdapter where another model wrote it."""
        if event["model"] != self.model:
            raise UnknownAdapter(
                f"{event['model']!r} answers where {self.model!r} was asked; nothing of it is "
                "shown (VLLM_SKIP_MODEL_NAME_VALIDATION must not be set for vLLM)"
            )
        if (read := event.get("prompt_token_ids")) is not None:
            self.prompt_tokens = len(read)
            self.token_ids.clear()  # a first try may have left some
            cut = self.prompt is None or self.prompt.cut_tokens
            self.read_otherwise = not cut and tuple(read) != getattr(self.prompt, "token_ids", ())
        for choice in event["choices"]:
            self.token_ids += choice.get("token_ids") or ()
            if choice["finish_reason"] == "abort":
                raise EngineStopped("vLLM gave the reply up (abort); try again in a moment")
        self.tokens = len(self.token_ids)
        self.fingerprint = event.get("system_fingerprint") or self.fingerprint


def as_sent(messages: tuple[Message, ...]) -> list[dict[str, str]]:
    """Return a chat's messages as the wire has them."""
    return [{"role": message.role, "content": message.content} for message in messages]


def vllm_refusal(url: str, answer: httpx.Response) -> ThumbtuneError:
    """Return what a refusal of vLLM's means here."""
    words = vllm_words(answer)
    status = answer.status_code
    if status == httpx.codes.SERVICE_UNAVAILABLE:  # its queue is full, or it is being scaled
        return EngineBusy(1, 1)
    if status == httpx.codes.NOT_FOUND and "does not exist" in words:
        return UnknownAdapter(f"{url}: {words}")
    if status in (400, 422):
        return InvalidInput(f"{url}: {words}")
    if status in (401, 403, 429):
        return refusal(url, answer)
    return EngineStopped(f"{url} answers with status {status}: {words}")


def vllm_words(answer: httpx.Response) -> str:
    """Return the server's own words of an error, in any of the shapes it uses."""
    try:
        body: Any = answer.json()
    except ValueError:
        return answer.text[:200]
    error = body.get("error", body.get("detail", "")) if isinstance(body, dict) else body
    return str(error.get("message", error) if isinstance(error, dict) else error)
