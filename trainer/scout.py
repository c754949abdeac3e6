"""A scout: where what people like is rare in what the base says, more of it to learn from.

Of four replies that the base draws none may be what people like, and the better side of a pair is
then only the less bad one. An adapter trained for a few steps on such pairs says it more often. So
its replies are drawn too and ranked by the same reward, and the adapter that is published learns,
from the beginning, from the best pairs of both; what the scout did wrong is not carried on (as
Zelikman et al. 2022 start anew from what a model answered itself; pairs of a model's own replies,
ranked again and again: Xu et al. 2023). No reply of the scout stands against one of the base's:
beside what people like, the two differ in everything that training has done.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from core.jobs import JobSpec, PairExample, Stage
from core.report import RewardFigures
from trainer.draws import Drawer
from trainer.keep_out import STEP_FACTOR
from trainer.model import load_merged, load_tokenizer
from trainer.ranked import Asked
from trainer.scoring import Texts
from trainer.stage import release_memory, train_into

RARE, DOUBTFUL = 0.22, 0.45
"""The share of the base's replies that people would like, and of the better replies of its pairs,
below both of which a scout is sent."""
MOST_LUCK = 0.1
"""How often luck may foretell the votes as well: what is no more than luck would only be learnt
more firmly. Twice the gate's bound: what stands between the two was learnt well where it was tried
(docs/experiments.md), though the gate refuses it."""
PAIRS = 40
"""So many pairs it learns from, at most."""
STRENGTH = 1.5
"""How strong it is made: it may forget, since only its replies to people's prompts are of use."""

NEVER_S = 1e9
"""So few steps are done again rather than kept."""

Progress = Callable[[float, str], None]

_SCOUT = "scout"


def is_needed(found: RewardFigures) -> bool:
    """Say whether there is something that people like, rare in what the base says, and its pairs
    hardly show it. None is for votes about length, which replies of any length show.
    """
    if found.about_length:
        return False
    rare = found.liked < RARE and found.likely < DOUBTFUL
    return rare and found.p_value <= MOST_LUCK


def send(
    spec: JobSpec,
    pairs: Sequence[PairExample],
    asked: Sequence[Asked],
    work: Path,
    on_progress: Progress,
) -> list[Asked]:
    """Train a scout in a job's work directory, and let it answer two thirds of the prompts."""
    stage = next(stage for stage in spec.stages if stage.on == "draws")
    target = work / _SCOUT
    if not target.exists():
        train_into(
            target,
            spec,
            _hurried(stage),
            pairs,
            before=None,
            resume=False,
            checkpoint_s=NEVER_S,
            tell=_teller(on_progress),
        )
        release_memory()
    chosen = random.Random(spec.seed).sample(list(asked), -(-2 * len(asked) // 3))
    texts = Texts(load_tokenizer(spec), spec.max_length)
    drawer = Drawer(spec, load_merged(spec, target, STRENGTH), texts)
    return drawer.answer(
        [one.prompt for one in chosen],
        lambda done: on_progress(0.5 + 0.5 * done, "drawing a scout's replies"),
    )


def _hurried(stage: Stage) -> Stage:
    """Return the stage without what keeps the base's knowledge, at the pace it has with that."""
    rate = stage.learning_rate * (STEP_FACTOR if stage.keep_out else 1.0)
    changes = {"learning_rate": rate, "keep_known": False, "keep_out": None}
    return stage.model_copy(update=changes)


def _teller(on_progress: Progress) -> Callable[..., None]:
    def tell(within: float, *, step: int = 0, steps: int = 0, **line: Any) -> None:
        at = f", step {step} of {steps}" if steps else ""
        on_progress(0.5 * within, f"training a scout: what people like is rare{at}")

    return tell
