"""How often each person's votes are wrong, by what everybody else says.

People err at different rates: who clicks without reading drowns out who reads. The true thumb is
not known, only what the reward foretells of it; so it and the people's errors are found together,
as in models of annotators (Dawid and Skene 1979; with a classifier in place of the unknown truth
Raykar et al. 2010). With r a row's reward by a fit that never saw its prompt, in standard
deviations, and s = ±1 what was said,

    maximise  Σ_rows log((1 - ε)·σ(s·(a·r + b)) + ε·σ(-s·(a·r + b))) + Σ_people log prior(ε)

over a > 0, b (votes only) and one ε in (0, ½) of each person. The prior is a Beta distribution's:
as if KNOWN things that each person said had been looked at, and the share USUAL of the rarer thumb
had been wrong. Errors cannot be more common than that thumb by much: where one reply in ten is
liked, errors one in five would explain every like.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from trainer.figures import Judged

USUAL, KNOWN = 0.5, 8.0
FEWEST_PEOPLE = 3
"""Of two who disagree nobody knows who errs."""
MOST = 0.5
"""Who errs more often contradicts all others (trainer.reward.contrary_people)."""
_START = -2.0
"""The logit of an error at first, as a share of MOST."""


def wrong_shares(judged: Judged) -> dict[str, float]:
    """Return how often each person is wrong, from 0 to MOST.

    Nobody is named where too few people say anything, or where all is foretold alike.
    """
    people = judged.people()
    votes, pairs = np.array(judged.rewards), np.array(judged.differences)
    spread = float((votes if len(votes) else pairs).std()) if people else 0.0
    if len(people) < FEWEST_PEOPLE or not spread:
        return {}
    centered = votes - votes.mean() if len(votes) else votes
    place = {person: number for number, person in enumerate(people)}
    errors = _fit(
        rewards=torch.from_numpy(np.concatenate([centered, pairs]) / spread),
        signs=torch.tensor([*(1 if liked else -1 for liked in judged.labels), *(1 for _ in pairs)]),
        biased=torch.arange(len(votes) + len(pairs)) < len(votes),
        places=torch.tensor([place[one] for one in (*judged.voters, *judged.choosers)]),
        usual=USUAL * _rarer(judged.labels),
    )
    return dict(zip(people, errors, strict=True))


def _fit(
    *,
    rewards: torch.Tensor,
    signs: torch.Tensor,
    biased: torch.Tensor,
    places: torch.Tensor,
    usual: float,
) -> list[float]:
    """Return ε of each person; `places` says whose each row is, `biased` which have a b."""
    count = int(places.max()) + 1
    found = torch.tensor([-0.7, 0.0, *[_START] * count], dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([found], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        solver.zero_grad()
        errors = MOST * torch.sigmoid(found[2:])
        margins = signs * (found[0].exp() * rewards + found[1] * biased)
        right, wrong = torch.sigmoid(margins), torch.sigmoid(-margins)
        own = errors[places]
        likely = ((1 - own) * right + own * wrong).log().sum()
        prior = usual * errors.log() + (1 - usual) * (1 - errors).log()
        total = -(likely + KNOWN * prior.sum())
        total.backward()  # type: ignore[no-untyped-call]
        return total

    solver.step(loss)  # type: ignore[no-untyped-call]
    fitted: list[float] = (MOST * torch.sigmoid(found[2:])).detach().tolist()
    return fitted


def _rarer(labels: Sequence[bool]) -> float:
    """Return the share of the rarer thumb; ½ without votes."""
    share = sum(labels) / len(labels) if labels else 0.5
    return max(min(share, 1 - share), 1e-3)
