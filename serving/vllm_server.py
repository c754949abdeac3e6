"""A vLLM server as it is asked, beside replies: what it is, and which adapters it has.

Learns a server anew each time it is told to; remembers nothing of it but our own tokenizer. What
its answers mean is in serving.vllm_check.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from core.basemodel import BaseModel
from core.errors import ThumbtuneError
from core.sections import ServingSettings
from serving.bare_tokenizer import open_tokenizer, open_whole_tokenizer
from serving.elsewhere import lora_call
from serving.prompt import Tokenizer, render
from serving.vllm_check import (
    Cards,
    Probed,
    check_base,
    check_heard,
    check_listed,
    check_reading,
    fixed_chat,
    largest_rank,
    load_fault,
    read_cards,
    read_probe,
)
from serving.vllm_places import Placed, Shelf
from serving.vllm_reply import as_sent, vllm_refusal, vllm_words

Call = Callable[..., Awaitable[httpx.Response]]
"""Calls a path with a method and a body; tries a lost connection again, raises a ThumbtuneError."""
_PROBE_TOKENS = 4


@dataclass(frozen=True, slots=True)
class Known:
    """What was learnt when the server was last looked at."""

    base: str
    root: str
    max_tokens: int
    max_rank: int | None

    def told(self) -> str:
        """Say it in a line."""
        rank = f"adapters up to rank {self.max_rank}" if self.max_rank else "adapters"
        return f"{self.root} as {self.base!r}, {self.max_tokens} tokens, {rank}"

    def fits(self, cards: Cards) -> bool:
        """Say whether its list of models still names the same base."""
        return (cards.base, cards.root, cards.max_tokens) == (self.base, self.root, self.max_tokens)


class VllmServer:
    """The questions. All raise ModelError, EngineStopped or another ThumbtuneError."""

    def __init__(
        self, url: str, call: Call, *, base: BaseModel, settings: ServingSettings, shelf: Shelf
    ) -> None:
        self._url, self._call = url, call
        self._base, self._settings, self._shelf = base, settings, shelf
        self.tokenizer: Tokenizer | None = None
        """Ours, once a server has read a chat as it does."""
        self._chat: list[dict[str, str]] = []
        self._base_probe: Probed | None = None

    async def cards(self) -> Cards:
        """Ask for its list of models."""
        return read_cards(self._url, await self._call("GET", "/models"))

    async def learn(self, cards: Cards, lora_rank: int) -> Known:
        """See that it is what it must be: base, reading, LoRA of this rank. Raises ModelError."""
        check_base(self._url, cards, self._base, self._settings)
        await self._compare_reading(cards.base)
        with self._shelf.marker() as there:
            answer = await self._load(f"probe-{Path(there).name}", there)
        rank = largest_rank(self._url, there, lora_rank, answer)
        return Known(cards.base, cards.root, cards.max_tokens, rank)

    async def bring(self, placed: Placed) -> None:
        """Load an adapter there, see that it is listed as ours, and that it is heard."""
        answer = await self._load(placed.called, placed.there)
        if answer.is_error and "has already been loaded" not in vllm_words(answer):
            raise load_fault(self._url, placed.name, placed.there, answer)
        check_listed(self._url, await self.cards(), placed.called, placed.there)
        probed = await self._probe(placed.called)
        assert self._base_probe is not None  # noqa: S101 - a server is learnt before it is used
        check_heard(self._url, placed.name, self._base_probe, probed)

    async def take_out(self, called: str) -> None:
        """Take a name out; one that is not there is out."""
        await self._call("POST", "/unload_lora_adapter", lambda: {"json": {"lora_name": called}})

    def refusal(self, answer: httpx.Response) -> ThumbtuneError:
        """Return what a refusal means here."""
        return vllm_refusal(self._url, answer)

    async def _compare_reading(self, model: str) -> None:
        """See that a fixed chat becomes the same tokens there.

        A difference counts only where the tokenizer that training uses says so too.
        """
        ours = self.tokenizer
        if ours is None:
            ours = await asyncio.to_thread(open_tokenizer, self._base)
        chat = fixed_chat(ours)
        self._chat = as_sent(chat)
        probed = await self._probe(model)
        if render(ours, chat) != probed.read:
            ours = await asyncio.to_thread(open_whole_tokenizer, self._base)
            check_reading(self._url, render(ours, chat), probed.read, ours)
        self.tokenizer, self._base_probe = ours, probed

    async def _probe(self, model: str) -> Probed:
        """Let a model write a few tokens after the fixed chat, greedily."""
        body = {
            "model": model, "messages": self._chat, "temperature": 0.0, "logprobs": True,
            "max_tokens": _PROBE_TOKENS, "return_token_ids": True,
        }  # fmt: skip
        answer = await self._call("POST", "/chat/completions", lambda: {"json": body})
        if answer.is_error:
            raise self.refusal(answer)
        return read_probe(self._url, model, answer)

    async def _load(self, called: str, there: str) -> httpx.Response:
        return await self._call(
            "POST",
            "/load_lora_adapter",
            lambda: lora_call(called, there),
            ours=(200, 400, 404, 500),
        )
