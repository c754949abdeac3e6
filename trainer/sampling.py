"""Draw replies from one system for measuring: batched, seeded, no work for rows that have ended.

Every prompt has its own row of uniform numbers, so a reply depends on the seed and its place in the
list, not on what shares its batch, and all systems meet the same luck. Not the server's engine: a
report must not depend on how replies are served.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from trainer.cache import beginning, copied, is_roomy, joined, of_like_length, roomy_cache
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
    asked = _asked(prompts, drawing)
    return _draw(systems, system, asked, drawing.batch, on_progress, on_token)


def draw_together(
    systems: Speakers,
    system: System,
    sets: Sequence[tuple[Sequence[Sequence[int]], Drawing]],
    *,
    on_progress: Callable[[float], None] = lambda fraction: None,
) -> list[list[Drawn]]:
    """Answer each set's prompts in its own way, side by side: a pass over more rows takes less for
    each. The replies are those of `draw_replies`, up to rounding.
    """
    asked = [one for prompts, drawing in sets for one in _asked(prompts, drawing)]
    batch = min(drawing.batch for _, drawing in sets)
    drawn = iter(_draw(systems, system, asked, batch, on_progress, lambda places: None))
    return [list(islice(drawn, len(prompts))) for prompts, _ in sets]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A prompt, how a reply to it is drawn, and a uniform number for each of its tokens."""

    prompt: tuple[int, ...]
    drawing: Drawing
    luck: torch.Tensor  # (max_tokens,)


def _asked(prompts: Sequence[Sequence[int]], drawing: Drawing) -> list[_Asked]:
    generator = torch.Generator().manual_seed(drawing.seed)
    luck = torch.rand((len(prompts), drawing.max_tokens), generator=generator)
    return [_Asked(tuple(ids), drawing, own) for ids, own in zip(prompts, luck, strict=True)]


def _draw(
    systems: Speakers,
    system: System,
    asked: Sequence[_Asked],
    batch: int,
    on_progress: Callable[[float], None],
    on_token: Callable[[Sequence[int]], None],
) -> list[Drawn]:
    order = sorted(range(len(asked)), key=lambda i: len(asked[i].prompt))
    drawn: dict[int, Drawn] = {}
    for start in range(0, len(order), batch):
        places = order[start : start + batch]
        rows = [asked[i] for i in places]
        done, part = len(drawn) / len(asked), len(places) / len(asked)
        told = _Told(places, done, part / _longest(rows), on_progress, on_token)
        with systems.using(system) as causal:
            drawn.update(zip(places, _Batch(causal, rows).run(told), strict=True))
        on_progress(len(drawn) / len(asked))
    return [drawn[place] for place in range(len(asked))]


def _longest(rows: Sequence[_Asked]) -> int:
    """Return how many tokens the longest of the replies may have."""
    return max(row.drawing.max_tokens for row in rows)


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


class _Batch:
    """Rows that decode together; `rows` says whose each is, NOWHERE if it has ended.

    Rows of the same prompt share the pass over it, and all rows that over what all begin with.
    """

    ids: torch.Tensor  # (prompts, T) at first, (R, 1) after
    mask: torch.Tensor  # (R, T so far)
    positions: torch.Tensor

    def __init__(self, causal: Any, asked: Sequence[_Asked]) -> None:
        self.causal, self.asked = causal, asked
        self.prompts = list(dict.fromkeys(one.prompt for one in asked))  # ascending in length
        self.prompt_of = [self.prompts.index(one.prompt) for one in asked]
        device = causal.device
        self.luck = pad_sequence([one.luck for one in asked], batch_first=True).to(device)  # (R, T)
        self.temperature = torch.tensor([one.drawing.temperature for one in asked], device=device)
        self.top_p = torch.tensor([one.drawing.top_p for one in asked], device=device)
        self.tokens_at_most = len(self.prompts[-1]) + _longest(asked)
        self.cache = roomy_cache(causal, self.tokens_at_most)
        self.rows = list(range(len(asked)))
        self.tokens: list[list[int]] = [[] for _ in asked]
        self.finished = [False] * len(asked)

    def run(self, on_token: Callable[[Sequence[int]], None]) -> list[Drawn]:
        logits = self._read_prompts()
        for step in range(_longest(self.asked)):
            if step:
                logits = self._forward()
                on_token(self.rows)
            now = self.rows
            chosen = choose(logits, self.luck[now, step], self.temperature[now], self.top_p[now])
            self._take(chosen.tolist())
            if not self._go_on(chosen):
                break
        return [Drawn(ids, done) for ids, done in zip(self.tokens, self.finished, strict=True)]

    def _read_prompts(self) -> torch.Tensor:
        """Pass over every different prompt once; from then on each reply has its row."""
        if is_roomy(self.cache):
            logits = self._read_in_parts(beginning(self.prompts))
        else:
            self._lay(self.prompts, 0)
            logits = self._forward()
        if len(logits) == len(self.prompt_of):
            return logits
        index = torch.tensor(self.prompt_of, device=logits.device)
        self.cache.batch_select_indices(index)
        self.positions, self.mask = self.positions[index], self.mask[index]
        return logits[index]

    def _read_in_parts(self, shared: tuple[int, ...]) -> torch.Tensor:
        """Pass over what all prompts begin with once, then over those of like length together."""
        tokens = self.tokens_at_most
        if shared:
            self._lay([shared], 0)
            self._forward()
        first, found = self.cache, []
        parts = of_like_length(list(map(len, self.prompts)), self.causal.device)
        for part in parts:
            room = tokens if len(parts) == 1 else len(self.prompts[part[-1]])
            self.cache = copied(first, len(part), room)
            self._lay([self.prompts[place][len(shared) :] for place in part], len(shared))
            found.append((self._forward(), self.cache, self.positions[:, -1:], self.mask))
        logits, caches, last, masks = zip(*found, strict=True)
        if len(parts) > 1:
            self.cache = joined(caches, tokens)
        width = max(mask.shape[1] for mask in masks)
        self.positions = torch.cat(last)
        self.mask = torch.cat([F.pad(mask, (width - mask.shape[1], 0)) for mask in masks])
        return torch.cat(logits)

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
            drawing, tokens = self.asked[row].drawing, self.tokens[row]
            self.finished[row] = token in drawing.end_ids
            if not self.finished[row]:
                tokens.append(token)
            if self.finished[row] or len(tokens) == drawing.max_tokens:
                self.rows[place] = NOWHERE

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


def choose(
    logits: torch.Tensor, luck: torch.Tensor, temperature: torch.Tensor, top_p: torch.Tensor
) -> torch.Tensor:
    """Return the next token of each row, (R,), from logits (R, vocab) and uniform numbers (R,).

    Draws from the smallest set of likeliest tokens with at least the row's `top_p` (R,) probability
    at its `temperature` (R,), by inverting its cumulative distribution at `luck`; at temperature 0
    the likeliest.
    """
    warm = temperature > 0
    if warm.all():
        return _drawn(logits, luck, temperature, top_p)
    chosen = logits.argmax(dim=-1)
    if warm.any():
        chosen[warm] = _drawn(logits[warm], luck[warm], temperature[warm], top_p[warm])
    return chosen


def _drawn(
    logits: torch.Tensor, luck: torch.Tensor, temperature: torch.Tensor, top_p: torch.Tensor
) -> torch.Tensor:
    probability = torch.softmax(logits / temperature[:, None], dim=-1)
    chosen, cut = _of_likeliest(probability, luck, top_p, FEW_TOKENS)
    if cut.any():
        more, _ = _of_likeliest(probability[cut], luck[cut], top_p[cut], CANDIDATE_TOKENS)
        chosen[cut] = more
    return chosen


def _of_likeliest(
    probability: torch.Tensor, luck: torch.Tensor, top_p: torch.Tensor, most: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the token drawn from the `most` likeliest, and whether `top_p` is beyond those.

    # (R,) each
    """
    top, tokens = probability.topk(min(most, probability.shape[-1]), dim=-1)  # likeliest first
    total = top.cumsum(dim=-1)
    cumulative = top.where(total - top < top_p[:, None], 0.0).cumsum(dim=-1)
    place = (cumulative < luck[:, None] * cumulative[:, -1:]).sum(dim=-1, keepdim=True)
    chosen = tokens.gather(-1, place.clamp(max=tokens.shape[-1] - 1)).squeeze(-1)
    return chosen, total[:, -1] < top_p
