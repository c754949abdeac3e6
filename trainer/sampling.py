"""Draw replies from one system for measuring: batched, seeded, no work for rows that have ended.

Every prompt has its own row of uniform numbers, so a reply depends on the seed and its place in the
list, not on what shares its batch, and all systems meet the same luck. Not the server's engine: a
report must not depend on how replies are served.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Protocol

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from trainer.scoring import System, left_padded

FEW_TOKENS, CANDIDATE_TOKENS = 64, 512
"""A draw looks at so many of the likeliest tokens, at the second number where those of the first
have not the probability wanted: a whole sort would take longer than the rest of the draw.
"""
ENDED_SHARE = 0.125
"""Rows that have ended are taken out once they are this share: it copies what all others keep."""
NOWHERE = -1
"""In the place of a row whose reply has ended."""


class Speakers(Protocol):
    """One model that speaks as this system or that (trainer.scoring.Systems)."""

    device: torch.device

    def using(self, system: System) -> AbstractContextManager[Any]:
        """Yield the causal model speaking as `system`, without gradients."""
        ...


@dataclass(frozen=True, slots=True)
class Drawn:
    """A reply: its tokens without the end token, and whether the model ended it itself."""

    token_ids: list[int]
    finished: bool


@dataclass(frozen=True, slots=True)
class Drawing:
    """How replies are drawn; `temperature` 0 is greedy."""

    end_ids: frozenset[int]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    batch: int = 40


def draw_replies(
    systems: Speakers,
    system: System,
    prompts: Sequence[Sequence[int]],
    drawing: Drawing,
    *,
    on_progress: Callable[[float], None] = lambda fraction: None,
    on_token: Callable[[Sequence[int]], None] = lambda places: None,
) -> list[Drawn]:
    """Answer every prompt (token ids, generation prompt included), in the order given.

    `on_token` is called after each pass over one token a row, with the places of those rows,
    `NOWHERE` for one that has ended; `on_progress` too, as if every reply of a batch took all of
    its tokens.
    """
    generator = torch.Generator().manual_seed(drawing.seed)
    luck = torch.rand((len(prompts), drawing.max_tokens), generator=generator)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    drawn: dict[int, Drawn] = {}
    for start in range(0, len(order), drawing.batch):
        places = order[start : start + drawing.batch]
        done, part = len(drawn) / len(prompts), len(places) / len(prompts)
        told = _Told(places, done, part / drawing.max_tokens, on_progress, on_token)
        with systems.using(system) as causal:
            batch = _Batch(causal, [prompts[i] for i in places], luck[places], drawing)
            drawn.update(zip(places, batch.run(told), strict=True))
        on_progress(len(drawn) / len(prompts))
    return [drawn[place] for place in range(len(prompts))]


@dataclass
class _Told:
    """Tells of each pass of a batch; `done` of all is done before it, `each` pass adds so much."""

    places: Sequence[int]
    done: float
    each: float
    on_progress: Callable[[float], None]
    on_token: Callable[[Sequence[int]], None]

    def __call__(self, rows: Sequence[int]) -> None:
        self.on_token([NOWHERE if row == NOWHERE else self.places[row] for row in rows])
        self.done += self.each
        self.on_progress(self.done)


class _Room(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values of one layer in a buffer with room for all tokens to come.

    Growing by concatenation copies everything that is there for every token.
    """

    def __init__(self, tokens: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tokens = tokens
        self._buffers: tuple[torch.Tensor, ...] = ()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add states (R, heads, T, size); return all there are, as views."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._buffers = tuple(
                states.new_empty((*states.shape[:2], self._tokens, states.shape[3]))
                for states in (key_states, value_states)
            )
        start, end = self.get_seq_length(), self.get_seq_length() + key_states.shape[-2]
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = states
        return self._show(end)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows; one named twice is there twice."""
        end = self.get_seq_length()
        buffers = tuple(
            buffer.new_empty((len(indices), *buffer.shape[1:])) for buffer in self._buffers
        )
        for buffer, old in zip(buffers, self._buffers, strict=True):
            buffer[:, :, :end] = old[indices, :, :end]
        self._buffers = buffers
        self._show(end)

    def _show(self, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values


def _roomy_cache(causal: Any, tokens: int) -> DynamicCache:
    """Return a cache for so many tokens a row; layers that hold anything else stay as they are."""
    cache = DynamicCache(config=causal.config)
    cache.layers = [
        _Room(tokens) if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


def _is_roomy(cache: DynamicCache) -> bool:
    """Say whether every layer sees all tokens: to one with a window, padding in the middle would
    push others out of it.
    """
    return all(isinstance(layer, _Room) for layer in cache.layers)


def _beginning(prompts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return what all of several prompts begin with; each has a token more."""
    if len(prompts) == 1:
        return ()
    columns = zip(*(prompt[:-1] for prompt in prompts), strict=False)
    return tuple(column[0] for column in takewhile(lambda column: len({*column}) == 1, columns))


class _Batch:
    """Rows that decode together; `rows` says whose each is, NOWHERE if it has ended.

    Rows of the same prompt share the pass over it, and all rows that over what all begin with:
    a chat template's system prompt is often longer than what a person says.
    """

    ids: torch.Tensor  # (prompts, T) at first, (R, 1) after
    mask: torch.Tensor  # (R, T so far)
    positions: torch.Tensor

    def __init__(
        self, causal: Any, prompts: list[Sequence[int]], luck: torch.Tensor, drawing: Drawing
    ) -> None:
        self.causal, self.drawing = causal, drawing
        self.luck = luck.to(causal.device)
        self.prompts = list(dict.fromkeys(map(tuple, prompts)))
        self.prompt_of = [self.prompts.index(tuple(prompt)) for prompt in prompts]
        longest = max(map(len, self.prompts))
        self.cache = _roomy_cache(causal, longest + drawing.max_tokens)
        self.rows = list(range(len(prompts)))
        self.tokens: list[list[int]] = [[] for _ in prompts]
        self.finished = [False] * len(prompts)

    def run(self, on_token: Callable[[Sequence[int]], None]) -> list[Drawn]:
        logits = self._read_prompts()
        for step in range(self.drawing.max_tokens):
            if step:
                logits = self._forward()
                on_token(self.rows)
            chosen = choose(logits, self.luck[self.rows, step], self.drawing)
            self._take(chosen.tolist())
            if not self._go_on(chosen):
                break
        return [Drawn(ids, done) for ids, done in zip(self.tokens, self.finished, strict=True)]

    def _read_prompts(self) -> torch.Tensor:
        """Pass over every different prompt once; from then on each reply has its row."""
        shared = _beginning(self.prompts) if _is_roomy(self.cache) else ()
        if shared:
            self._lay([shared], 0)
            self._forward()
            self.cache.batch_select_indices(torch.zeros(len(self.prompts), dtype=torch.long))
        self._lay([prompt[len(shared) :] for prompt in self.prompts], len(shared))
        logits = self._forward()
        if len(logits) == len(self.prompt_of):
            return logits
        index = torch.tensor(self.prompt_of, device=logits.device)
        self.cache.batch_select_indices(index)
        self.positions, self.mask = self.positions[index], self.mask[index]
        return logits[index]

    def _lay(self, rows: Sequence[Sequence[int]], before: int) -> None:
        """Make ready for a pass over rows that go on after `before` tokens."""
        inputs = left_padded(rows, self.causal.device)
        mask = inputs["attention_mask"]
        self.ids = inputs["input_ids"]
        self.positions = inputs["position_ids"] + before
        self.mask = torch.cat([mask.new_ones((len(mask), before)), mask], dim=1)

    def _forward(self) -> torch.Tensor:
        """One step; returns the next token's logits, (R, vocab) float32."""
        out = self.causal(
            input_ids=self.ids,
            attention_mask=self.mask,
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1].float()  # type: ignore[no-any-return]

    def _take(self, chosen: Sequence[int]) -> None:
        """Add each row's token, or end the row."""
        for place, (row, token) in enumerate(zip(self.rows, chosen, strict=True)):
            if row == NOWHERE:
                continue
            if token in self.drawing.end_ids:
                self.finished[row] = True
                self.rows[place] = NOWHERE
            else:
                self.tokens[row].append(token)

    def _go_on(self, chosen: torch.Tensor) -> bool:
        """Make ready for the next token, ended rows taken out where they are many; say whether any
        row runs on.
        """
        running = [place for place, row in enumerate(self.rows) if row != NOWHERE]
        ids, last = chosen[:, None], self.positions[:, -1:]
        if running and len(running) <= (1 - ENDED_SHARE) * len(self.rows):
            index = torch.tensor(running, device=chosen.device)
            self.cache.batch_select_indices(index)
            ids, last, self.mask = ids[index], last[index], self.mask[index]
            self.rows = [self.rows[place] for place in running]
        self.ids, self.positions = ids, last + 1
        self.mask = torch.cat([self.mask, self.mask.new_ones((len(self.mask), 1))], dim=1)
        return bool(running)


def choose(logits: torch.Tensor, luck: torch.Tensor, drawing: Drawing) -> torch.Tensor:
    """Return the next token of each row, (R,), from logits (R, vocab) and uniform numbers (R,).

    Draws from the smallest set of likeliest tokens with at least `top_p` probability at
    `temperature`, by inverting its cumulative distribution at `luck`.
    """
    if drawing.temperature == 0:
        return logits.argmax(dim=-1)
    probability = torch.softmax(logits / drawing.temperature, dim=-1)
    chosen, cut = _drawn(probability, luck, drawing.top_p, FEW_TOKENS)
    if cut.any():
        more, _ = _drawn(probability[cut], luck[cut], drawing.top_p, CANDIDATE_TOKENS)
        chosen[cut] = more
    return chosen


def _drawn(
    probability: torch.Tensor, luck: torch.Tensor, top_p: float, most: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the token drawn from the `most` likeliest, and whether `top_p` is beyond those.

    # (R,) each
    """
    top, tokens = probability.topk(min(most, probability.shape[-1]), dim=-1)  # likeliest first
    total = top.cumsum(dim=-1)
    cumulative = top.where(total - top < top_p, 0.0).cumsum(dim=-1)
    place = (cumulative < luck[:, None] * cumulative[:, -1:]).sum(dim=-1, keepdim=True)
    chosen = tokens.gather(-1, place.clamp(max=tokens.shape[-1] - 1)).squeeze(-1)
    return chosen, total[:, -1] < top_p
