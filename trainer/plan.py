"""What a run would learn from: selected, split, and with a recipe. Nothing is written, nothing is
trained.

Knows no torch and no SQL; both a dry run and a real one stand on this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.jobs import Example
from core.records import FeedbackRow
from core.settings import Settings
from trainer.dataset import count_examples, select_examples
from trainer.recipes import Plan, plan_recipe
from trainer.split import split_examples


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """The data and the recipe of one run, and what was left out and why."""

    train: list[Example]
    held_out: list[Example]
    recipe: Plan
    why_split: str
    left_out: dict[str, int]

    def counts(self) -> dict[str, int]:
        """Count examples by side, as they are shown and stored with the run."""
        return example_counts(self.train, self.held_out, self.left_out)


def example_counts(
    train: Sequence[Example], held_out: Sequence[Example], left_out: dict[str, int]
) -> dict[str, int]:
    """Name what both sides hold and what was left out: `train_…`, `held_out_…`, `left_out_…`."""
    counts = {f"train_{name}": value for name, value in count_examples(train).items()}
    counts |= {f"held_out_{name}": value for name, value in count_examples(held_out).items()}
    return counts | {f"left_out_{reason}": value for reason, value in left_out.items()}


def plan_training(rows: Sequence[FeedbackRow], settings: Settings, recipe: str) -> TrainingPlan:
    """Select, split and choose; raises NotEnoughData with what is missing, InvalidInput for a bad
    recipe.
    """
    training = settings.training
    selection = select_examples(rows, person_share=settings.privacy.person_share)
    plan_recipe(recipe, selection.examples, training)
    split = split_examples(
        selection.examples, held_out_share=training.held_out_share, seed=training.seed
    )
    chosen = plan_recipe(recipe, split.train, training)
    return TrainingPlan(split.train, split.held_out, chosen, split.why, selection.left_out)
