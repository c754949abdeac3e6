"""Drawing tokens: the distribution asked for, by the row's own generator."""

from __future__ import annotations

import torch

from core.generation import Sampling
from serving.sampling import Sampler, draw_tokens

LOGITS = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()


def draws(sampling: Sampling, logits: torch.Tensor = LOGITS, count: int = 4000) -> torch.Tensor:
    """Return how often each token is drawn, as shares.  # (vocab,)"""
    sampler = Sampler.seeded(sampling, seed=1)
    tokens = [draw_tokens(logits[None], [sampler])[0] for _ in range(count)]
    return torch.bincount(torch.tensor(tokens), minlength=logits.shape[0]) / count


def close(shares: torch.Tensor, expected: list[float]) -> bool:
    """Say whether shares of 4000 draws are within four standard errors (at most 0.032)."""
    return bool((shares - torch.tensor(expected)).abs().max() < 0.032)


def test_plain_draws_follow_the_softmax() -> None:
    """At temperature 1 with nothing cut the shares are the probabilities."""
    assert close(draws(Sampling(1.0, top_p=1.0)), [0.5, 0.3, 0.15, 0.05])


def test_temperature_sharpens() -> None:
    """At temperature 1/2 probabilities are squared: .25, .09, .0225, .0025 of .365."""
    assert close(draws(Sampling(0.5, top_p=1.0)), [0.685, 0.247, 0.062, 0.007])


def test_top_p_keeps_the_smallest_set() -> None:
    """A nucleus of 0.7 is the first two tokens, 5/8 and 3/8."""
    assert close(draws(Sampling(1.0, top_p=0.7)), [0.625, 0.375, 0.0, 0.0])


def test_top_k_then_top_p() -> None:
    """After top-k 2 the shares are 5/8 and 3/8, so a nucleus of 0.6 is the first alone."""
    assert close(draws(Sampling(1.0, top_p=1.0, top_k=2)), [0.625, 0.375, 0.0, 0.0])
    assert close(draws(Sampling(1.0, top_p=0.6, top_k=2), count=50), [1.0, 0.0, 0.0, 0.0])


def test_a_wide_nucleus_is_exact() -> None:
    """A nucleus wider than a quick look (of 200 or 4000 equal tokens, 0.9 of them) is right."""
    shares = draws(Sampling(1.0, top_p=0.9), torch.zeros(200), count=3000)
    assert 170 <= int((shares > 0).sum()) <= 181
    wide = draws(Sampling(1.0, top_p=0.9), torch.zeros(4000), count=2000)
    assert 1300 <= int((wide > 0).sum()) <= 1700  # 3600 (1 - e^-(2000/3600)) is 1534


def test_greedy_takes_the_likeliest() -> None:
    """Temperature 0 is the argmax, and draws nothing from the generator."""
    sampler = Sampler.seeded(Sampling(0.0), seed=1)
    state = sampler.generator.get_state()
    assert draw_tokens(LOGITS[None], [sampler]) == [0]
    assert torch.equal(state, sampler.generator.get_state())


def test_rows_do_not_touch_each_other() -> None:
    """A row draws the same alone and between others, one of them broken."""
    sampling = Sampling(1.0)
    alone = [draw_tokens(LOGITS[None], [s])[0] for s in [Sampler.seeded(sampling, 5)] * 8]
    crowded, samplers = [], [Sampler.seeded(sampling, seed) for seed in (4, 5, 6)]
    logits = torch.stack([LOGITS, LOGITS, torch.full((4,), float("nan"))])
    for _ in range(8):
        drawn = draw_tokens(logits, samplers)
        assert drawn[2] is None
        crowded.append(drawn[1])
    assert crowded == alone
