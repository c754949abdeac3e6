"""Chats that ask an engine all at once: the requests, the closed loop, what it felt like.

N chats arrive at small random offsets; each asks for its next reply as soon as the last has ended,
until the list of requests is used up. Everything goes through the engine as a face uses it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks.chats import exchanges
from benchmarks.common import Timed, quantile
from core.generation import BASE, Engine, GenerationRequest, Message, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ADAPTERS = tuple(f"bench@v{index}" for index in range(1, 9))
MAX_TOKENS = 64
ARRIVAL_S = 0.3
REPLIES_A_CHAT = 4
LEAST_REPLIES = 8
_WARM_UP_TOKENS = 4


@dataclass(frozen=True, slots=True)
class Cell:
    """How many chats at once over how many adapters; 0 adapters is the base alone."""

    chats: int
    adapters: int

    @property
    def name(self) -> str:
        """Return the cell's name, such as `16x4`."""
        return f"{self.chats}x{self.adapters}"

    def requests(self, turn: int) -> list[GenerationRequest]:
        """Return the requests of a round, with contexts no other round or cell has asked.

        Only 0 and 4 adapters share theirs, which are never the same context on the same weights.
        """
        count = max(LEAST_REPLIES, REPLIES_A_CHAT * self.chats)
        others = 0 if self.adapters in (0, 4) else self.adapters
        drawn = exchanges(count, seed=10_000 * turn + 10 * self.chats + others)
        return [
            GenerationRequest(
                one.context,
                ADAPTERS[index % self.adapters] if self.adapters else BASE,
                Sampling(0.7, 0.95, max_tokens=MAX_TOKENS, seed=1000 * turn + index),
            )
            for index, one in enumerate(drawn)
        ]


MIXED, PLAIN, ALONE = Cell(16, 4), Cell(16, 0), Cell(1, 0)
COMPARED = (MIXED, PLAIN, ALONE)
"""The cells whose requests the peers answer too."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one cell gave: drawn tokens over wall time, and waits in milliseconds."""

    tokens_per_s: float
    first_p50_ms: float
    first_p95_ms: float
    gap_p50_ms: float
    gap_p99_ms: float


async def warm_up(engine: Engine, cell: Cell) -> None:
    """Let every chat of a cell ask for a few tokens, unmeasured."""
    short = Sampling(0.7, 0.95, max_tokens=_WARM_UP_TOKENS, seed=0)
    requests = cell.requests(turn=-1)[: max(cell.chats, 2)]
    await asyncio.gather(*(timed(engine, replace(one, sampling=short)) for one in requests))


async def run_cell(
    engine: Engine, cell: Cell, requests: Sequence[GenerationRequest], *, seed: int
) -> Figures:
    """Let the cell's chats use up the requests."""
    chance = random.Random(seed)
    rest = iter(requests)
    done: list[Timed] = []
    began = time.perf_counter()
    await asyncio.gather(
        *(_chat(engine, rest, chance.uniform(0, ARRIVAL_S), done) for _ in range(cell.chats))
    )
    took = time.perf_counter() - began
    firsts = [1e3 * one.arrivals_s[0] for one in done]
    gaps = [1e3 * gap for one in done for gap in one.gaps_s]
    return Figures(
        tokens_per_s=sum(one.tokens for one in done) / took,
        first_p50_ms=quantile(firsts, 0.5),
        first_p95_ms=quantile(firsts, 0.95),
        gap_p50_ms=quantile(gaps, 0.5),
        gap_p99_ms=quantile(gaps, 0.99),
    )


async def _chat(
    engine: Engine, rest: Iterator[GenerationRequest], offset_s: float, done: list[Timed]
) -> None:
    await asyncio.sleep(offset_s)
    done.extend([await timed(engine, request) for request in rest])


async def timed(engine: Engine, request: GenerationRequest) -> Timed:
    """Stream one reply and note when each piece came; a reply without a piece came at its end."""
    began = time.perf_counter()
    stream = engine.generate(request)
    arrivals = [time.perf_counter() - began async for _ in stream]
    result = await stream.result()
    if result.finish_reason not in ("stop", "length"):
        raise RuntimeError(f"a reply ended with {result.finish_reason!r}; see the log")
    arrivals = arrivals or [time.perf_counter() - began]
    return Timed(result.adapter, result.token_ids, tuple(arrivals), len(result.token_ids))


def unknown_contexts(
    tokenizer: PreTrainedTokenizerBase, count: int, *, tokens: int, seed: int
) -> list[GenerationRequest]:
    """Return requests of about `tokens` prompt tokens that no cache can know the beginning of.

    The random words begin in the system's message: a chat template's own would be the same for all.
    """
    chance = random.Random(seed)
    words = [word for one in exchanges(50, seed=seed) for word in one.reply.split()]
    sampling = Sampling(0.7, 0.95, max_tokens=8, seed=seed)
    return [
        GenerationRequest(_grown(tokenizer, tokens, lambda: chance.choice(words)), BASE, sampling)
        for _ in range(count)
    ]


def _grown(
    tokenizer: PreTrainedTokenizerBase, tokens: int, word: Callable[[], str]
) -> tuple[Message, ...]:
    from serving.prompt import fit_prompt

    about, said = " ".join(word() for _ in range(8)), [word()]
    while True:
        messages = (Message("system", about), Message("user", " ".join(said)))
        if len(fit_prompt(tokenizer, messages, 4 * tokens).token_ids) >= tokens:
            return messages
        said.append(word())
