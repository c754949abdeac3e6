"""A completion: checked as vLLM checks it, written by the tiny engine, in vLLM's chunks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from core.generation import BASE, GenerationRequest, Message, Sampling
from serving.engine import LocalEngine
from serving.prompt import Tokenizer, render
from tests.vllm_double.faults import Faults, Options
from tests.vllm_double.loras import Lora
from tests.vllm_double.scoring import Scorer
from tests.vllm_double.shapes import Chunks, error_body, logprobs, whole


class StreamOptions(BaseModel):
    """What a stream tells besides."""

    include_usage: bool | None = False


class Asked(BaseModel):
    """The part of a ChatCompletionRequest that this project uses; more is let through."""

    model_config = ConfigDict(extra="allow")

    messages: list[dict[str, Any]]
    model: str | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    stop: str | list[str] | None = []
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    return_token_ids: bool | None = None
    logprobs: bool | None = False

    def chat(self) -> tuple[Message, ...]:
        """Return the messages as the engine takes them."""
        return tuple(Message(one["role"], one["content"]) for one in self.messages)

    def sampling(self, most: int) -> Sampling:
        """Return how it is drawn, in at most so many tokens."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=max(0, self.top_k or 0),
            max_tokens=most,
            seed=self.seed,
            stop=tuple(stop),
        )


@dataclass
class Writer:
    """Writes completions of one process; `running` counts those under way by name."""

    engine: LocalEngine
    tokenizer: Tokenizer
    options: Options
    faults: Faults
    scorer: Scorer
    running: list[str] = field(default_factory=list)
    aborted: int = 0
    seen: list[dict[str, Any]] = field(default_factory=list)

    def read(self, asked: Asked) -> list[int]:
        """Return a prompt's tokens; raises ValueError where it is too long."""
        ids = list(render(self.tokenizer, asked.chat()))
        if len(ids) > self.options.max_model_len:
            raise ValueError(
                f"This model's maximum context length is {self.options.max_model_len} tokens. "
                f"However, your prompt contains {len(ids)} input tokens, which exceeds this limit "
                "even without any output tokens. Please reduce the length of the input prompt. "
                f"(parameter=input_tokens, value={len(ids)})"
            )
        return ids

    def request(self, asked: Asked, ids: list[int], lora: Lora | None) -> GenerationRequest:
        """Return what the engine is asked."""
        wanted = asked.max_completion_tokens or asked.max_tokens
        room = self.options.max_model_len - len(ids)
        sampling = asked.sampling(min(wanted or room, room))
        return GenerationRequest(asked.chat(), lora.inside if lora else BASE, sampling)

    async def whole(self, asked: Asked, ids: list[int], lora: Lora | None) -> dict[str, Any]:
        """Write a completion that is not streamed."""
        done = await self.engine.generate(self.request(asked, ids, self._heard(lora))).result()
        drawn = list(done.token_ids)
        chunks = Chunks(self._name(lora), with_ids=bool(asked.return_token_ids))
        return whole(
            chunks,
            {
                "text": done.text, "reason": done.finish_reason, "ids": drawn, "prompt_ids": ids,
                "fingerprint": self.options.fingerprint,
                "logprobs": self._scored(lora, ids, drawn) if asked.logprobs else None,
            },
        )  # fmt: skip

    async def stream(self, asked: Asked, ids: list[int], lora: Lora | None) -> AsyncIterator[str]:
        """Yield the events; whoever leaves, the engine is told."""
        name = self._name(lora)
        chunks = Chunks(name, with_ids=bool(asked.return_token_ids))
        reply = self.engine.generate(self.request(asked, ids, self._heard(lora)))
        self.running.append(name)
        ended = False
        try:
            await self.faults.going.wait()
            yield _event(chunks.opening(ids))
            sent: list[int] = []
            count = 0
            async for text in self._pieces(reply):
                if self._due("cut_after", count):
                    raise ConnectionResetError  # the socket is closed in the middle
                if self._due("error_after", count):
                    yield _event(error_body("Internal server error", "InternalServerError", 500))
                    yield "data: [DONE]\n\n"
                    return
                if self._due("abort_after", count):
                    yield _event(chunks.last([], "abort"))
                    yield "data: [DONE]\n\n"
                    return
                drawn = self._drawn(text)
                sent += drawn
                count += 1
                yield _event(chunks.piece(text, drawn))
                await self.faults.going.wait()
            done = await reply.result()
            left = list(done.token_ids[len(sent) :])
            yield _event(chunks.last(left, done.finish_reason))
            if asked.stream_options and asked.stream_options.include_usage:
                told = chunks.counts(len(ids), len(sent) + len(left), self.options.fingerprint)
                yield _event(told)
            ended = True
            yield "data: [DONE]\n\n"
        finally:
            self.running.remove(name)
            self.aborted += not ended
            reply.cancel()

    async def _pieces(self, reply: Any) -> AsyncIterator[str]:
        if self.faults.text:
            said, self.faults.text = self.faults.text, ""
            yield said
            return
        async for text in reply:
            yield text

    def _due(self, fault: str, count: int) -> bool:
        if getattr(self.faults, fault) != count:
            return False
        setattr(self.faults, fault, None)
        return True

    def _drawn(self, text: str) -> list[int]:
        """Return the tokens of a piece; those of broken characters are told at the end."""
        if "\ufffd" in text:
            return []
        encoded = self.tokenizer(text, add_special_tokens=False, verbose=False)
        return list(encoded["input_ids"])

    def _heard(self, lora: Lora | None) -> Lora | None:
        return None if self.faults.deaf else lora

    def _scored(self, lora: Lora | None, prompt: list[int], ids: list[int]) -> dict[str, Any]:
        values = self.scorer.logprobs(self._heard(lora), prompt, ids)
        return logprobs([str(self.tokenizer.decode([token])) for token in ids], values)

    def _name(self, lora: Lora | None) -> str:
        return lora.name if lora else self.options.served_name


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n"
