"""How the next token of each row is drawn from its logits.

A row's draw depends on its own logits, settings and random generator only: the same seed gives the
same reply whatever its neighbours do. The order is the usual one: temperature, then top-k, then
top-p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from core.generation import Sampling

_WIDTHS = (64, 2048)  # likeliest tokens looked at first: sorting a whole vocabulary is slow


@dataclass(frozen=True, slots=True, eq=False)
class Sampler:
    """One row's way of drawing, with its own generator (on the CPU, so that devices agree)."""

    sampling: Sampling
    generator: torch.Generator

    @classmethod
    def seeded(cls, sampling: Sampling, seed: int) -> Sampler:
        """Make a sampler whose draws follow from the seed alone."""
        return cls(sampling, torch.Generator().manual_seed(seed))

    def point(self) -> float:
        """Return the next uniform number of this row, in [0, 1)."""
        return float(torch.rand((), generator=self.generator, dtype=torch.float64))


def draw_tokens(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[int | None]:
    """Draw one token a row; None where a row's logits are not finite.

    logits  # (rows, vocab), any float dtype
    """
    logits = logits.float()
    best = logits.max(dim=-1)
    finite: list[bool] = torch.isfinite(best.values).tolist()  # NaN and +inf win a maximum
    tokens: list[int | None] = best.indices.tolist()
    for row, sampler in enumerate(samplers):
        if sampler.sampling.temperature > 0 and finite[row]:
            tokens[row] = _draw(logits[row], sampler)
    return [token if ok else None for token, ok in zip(tokens, finite, strict=True)]


def _draw(logits: torch.Tensor, sampler: Sampler) -> int:
    """Draw from one row's distribution.  logits  # (vocab,) float32"""
    sampling = sampler.sampling
    point = sampler.point()
    probabilities = torch.softmax(logits / sampling.temperature, dim=-1)
    if sampling.top_k == 0 and sampling.top_p >= 1:
        return _invert(probabilities, point)
    ranked, tokens = _candidates(probabilities, sampling)
    chosen = _invert(ranked[: _nucleus_size(ranked, sampling.top_p)], point)
    return int(tokens[chosen])


def _candidates(
    probabilities: torch.Tensor, sampling: Sampling
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the tokens top-k leaves, likeliest first, or at least those top-p can reach."""
    vocab = probabilities.shape[0]
    if sampling.top_k:
        ranked, tokens = probabilities.topk(min(sampling.top_k, vocab))
        return ranked / ranked.sum(), tokens
    for width in _WIDTHS:
        ranked, tokens = probabilities.topk(min(width, vocab))
        if ranked.sum() >= sampling.top_p:
            return ranked, tokens
    return probabilities.sort(descending=True)


def _nucleus_size(ranked: torch.Tensor, top_p: float) -> int:
    """Return how many of the ranked tokens make up `top_p`, at least one."""
    before = ranked.cumsum(dim=0) - ranked  # (candidates,) mass of the likelier ones
    return max(1, int((before < top_p).sum()))


def _invert(weights: torch.Tensor, point: float) -> int:
    """Return where the running sum of weights passes `point` (in [0, 1)) of the whole."""
    running = weights.double().cumsum(dim=0)
    index = int(torch.searchsorted(running, point * running[-1], right=True))
    return min(index, weights.shape[0] - 1)
