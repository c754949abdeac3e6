"""What came of a cell: the like-rate on unseen prompts with its interval, and what it cost.

Pure figures from the replies and the job's report; no models but the taste's own.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks.learning.arms import PLANTED
from benchmarks.learning.cells import Cell, Written, read_drawn
from benchmarks.learning.instructions import Followed
from benchmarks.learning.tastes import Taste
from core.report import Report, read_report
from core.sections import GateSettings
from trainer.figures import distinct_share, repeated_share
from trainer.gate import judge

_DRAWS = 2000


@dataclass(frozen=True, slots=True)
class Figures:
    """A cell in numbers. Rates are shares in [0, 1]; `…_low` and `…_high` bound 95 %.

    `planted` is the share of replies that hold the planted phrase; `keep_fall` the keep-set's
    score before minus after; `reward_p` how often shuffled votes would be foretold as well.
    `answered` is the share of the keep-set's questions that are answered well in replies as people
    get them, `ifeval` the share of `ifeval_n` instructed prompts that were followed; None if not
    asked.
    """

    like: float
    like_low: float
    like_high: float
    base_like: float
    base_like_low: float
    base_like_high: float
    words: float
    base_words: float
    repetition: float
    base_repetition: float
    distinct_2: float
    empty: float
    planted: float
    keep: float
    base_keep: float
    keep_fall: float
    answered: float | None
    base_answered: float | None
    ifeval: float | None
    base_ifeval: float | None
    ifeval_n: int
    perplexity_ratio: float
    kl: float
    held_out_accuracy: float
    held_out_p: float
    reward_accuracy: float
    reward_p: float
    accepted: bool
    failed: str
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as one JSON object."""
        return asdict(self)


def measure_cell(
    directory: Path,
    taste: Taste,
    base: Sequence[Written],
    followed: tuple[Sequence[Followed], Sequence[Followed]] = ((), ()),
    answered: tuple[float | None, float | None] = (None, None),
) -> Figures:
    """Judge a finished cell; `base` are the base's replies to the same prompts, `followed` what the
    base and the cell's adapter made of instructions, `answered` their shares of plain questions.
    """
    own, report = read_drawn(directory), read_report(directory)
    candidate, before = report.systems["candidate"], report.systems["base"]
    verdict = judge(report, GateSettings())
    return Figures(
        **_like("", _liked(taste, own)),
        **_like("base_", _liked(taste, base)),
        **_instructed(*followed),
        words=_words(own),
        base_words=_words(base),
        repetition=_repetition(own),
        base_repetition=_repetition(base),
        distinct_2=distinct_share([one.tokens for one in own]),
        empty=fmean(not one.text for one in own),
        planted=fmean(PLANTED.lower() in one.text.lower() for one in own),
        keep=candidate.keep_score,
        base_keep=before.keep_score,
        keep_fall=before.keep_score - candidate.keep_score,
        base_answered=answered[0],
        answered=answered[1],
        perplexity_ratio=candidate.perplexity / before.perplexity,
        kl=candidate.kl_to_base,
        **_learnt(report),
        accepted=verdict.accepted,
        failed=", ".join(check.name for check in verdict.failed),
        seconds=sum(report.times_s.values()),
    )


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of a mean, prompts resampled."""
    chance = random.Random(0)
    means = sorted(fmean(chance.choices(values, k=len(values))) for _ in range(_DRAWS))
    return means[int(0.025 * _DRAWS)], means[int(0.975 * _DRAWS)]


def by_arm(found: Mapping[Cell, Figures]) -> dict[str, dict[Cell, Figures]]:
    """Part cells by their arm, and by their recipe where it is not the default one."""
    arms: defaultdict[str, dict[Cell, Figures]] = defaultdict(dict)
    for cell, one in found.items():
        arms[cell.arm + (f"@{cell.variant}" if cell.variant else "")][cell] = one
    return dict(arms)


def _like(prefix: str, liked: Sequence[float]) -> dict[str, Any]:
    low, high = mean_interval(liked)
    names = (f"{prefix}like", f"{prefix}like_low", f"{prefix}like_high")
    return dict(zip(names, (fmean(liked), low, high), strict=True))


def _instructed(base: Sequence[Followed], own: Sequence[Followed]) -> dict[str, Any]:
    base_share, share = (fmean(one.passed for one in of) if of else None for of in (base, own))
    return {"base_ifeval": base_share, "ifeval": share, "ifeval_n": len(own)}


def _learnt(report: Report) -> dict[str, Any]:
    own, reward = report.preference, report.reward
    return {
        "held_out_accuracy": own.accuracy.value if own else 0.0,
        "held_out_p": own.p_value if own else 1.0,
        "reward_accuracy": reward.accuracy.value if reward else 0.0,
        "reward_p": reward.p_value if reward else 1.0,
    }


def _liked(taste: Taste, replies: Sequence[Written]) -> list[float]:
    return [float(taste.likes(one.prompt, one.text, one.complete)) for one in replies]


def _words(replies: Sequence[Written]) -> float:
    return float(median(len(one.text.split()) for one in replies))


def _repetition(replies: Sequence[Written]) -> float:
    return fmean(repeated_share(one.tokens) for one in replies)
