"""How much a run draws and ranks: what takes a few minutes on the device it runs on.

On a CPU drawing replies is the longest part of a run. On a GPU eight times as many took half as
long, beside eleven other runs, and the better of many replies shows what people like more clearly
than the better of four (docs/experiments.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from core.jobs import JobSpec
from trainer.model import choose_device


@dataclass(frozen=True, slots=True)
class Effort:
    """Up to `prompts` of people's prompts are answered `draws` times each, more often where that
    gives fewer than `fewest` replies. Where people wrote more than twice as many, half of theirs
    are, but no more than `most_prompts`. The `pairs` furthest apart are learnt from, beside
    `anchors` plain questions. `heard` prompts are answered anew at each strength that is tried,
    twice as many where votes are about length.
    """

    prompts: int
    most_prompts: int
    draws: int
    fewest: int
    pairs: int
    anchors: int
    heard: int

    def asked(self, prompts: int) -> int:
        """Return how many of so many prompts are answered at most."""
        return max(self.prompts, min(prompts // 2, self.most_prompts))

    def times_each(self, prompts: int) -> int:
        """Return how often each of so many prompts is answered."""
        return max(self.draws, round(self.fewest / prompts))


CPU = Effort(prompts=96, most_prompts=384, draws=4, fewest=192, pairs=48, anchors=32, heard=32)
GPU = Effort(prompts=512, most_prompts=512, draws=17, fewest=768, pairs=90, anchors=56, heard=64)


def effort_of(spec: JobSpec) -> Effort:
    """Return what the job asks for, and where it asks for nothing what its device affords."""
    usual = CPU if choose_device(spec.device) == "cpu" else GPU
    return Effort(
        prompts=_or(spec.ranked_prompts, usual.prompts),
        most_prompts=_or(spec.ranked_prompts, usual.most_prompts),
        draws=_or(spec.draws, usual.draws),
        fewest=usual.fewest if spec.draws is None else 0,
        pairs=_or(spec.ranked_pairs, usual.pairs),
        anchors=_or(spec.anchors, usual.anchors),
        heard=usual.heard,
    )


def _or(asked: int | None, usual: int) -> int:
    return usual if asked is None else asked
