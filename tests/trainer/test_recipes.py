"""Which training a data set gets, and what it is refused for."""

from __future__ import annotations

import pytest

from core.errors import InvalidInput, NotEnoughData
from core.jobs import Example
from core.sections import TrainingSettings
from tests.trainer.rows import correction, pair, vote
from trainer.recipes import imitable, plan_recipe, unpaired

SETTINGS = TrainingSettings(min_examples=4, batch_size=4)


def votes(liked: int, disliked: int) -> list[Example]:
    return [vote(i < liked, prompt=f"p{i}") for i in range(liked + disliked)]


def corrections(count: int) -> list[Example]:
    one_each = [(correction(prompt=f"c{i}"), pair(prompt=f"c{i}")) for i in range(count)]
    return [example for both in one_each for example in both]


@pytest.mark.parametrize(
    ("examples", "name", "losses", "why"),
    [
        (votes(6, 30), "bon", ["sigmoid"], "6 👍, 30 👎"),
        (corrections(5), "sft", ["nll"], "only corrections, and few"),
        (corrections(70), "sft+dpo", ["nll", "sigmoid"], "only corrections"),
        ([*votes(6, 30), *corrections(10)], "sft+bon", ["nll", "sigmoid"], "imitate the"),
        ([pair(prompt=f"p{i}") for i in range(9)], "dpo", ["sigmoid"], "mostly pairs"),
        (votes(9, 0), "sft", ["nll"], "votes of one kind only"),
    ],
)
def test_auto_chooses_by_the_data(
    examples: list[Example], name: str, losses: list[str], why: str
) -> None:
    """Each kind of data gets its recipe and a sentence that says why."""
    plan = plan_recipe("auto", examples, SETTINGS)
    assert (plan.name, [stage.loss for stage in plan.stages]) == (name, losses)
    assert why in plan.why


@pytest.mark.parametrize(
    ("recipe", "examples", "message"),
    [
        ("auto", votes(1, 1), "1 👍, 1 👎, 0 corrections, 0 pairs; training starts at 4"),
        ("auto", votes(0, 9), "nothing shows what would be liked"),
        ("kto", votes(9, 0), "9 liked and 0 disliked"),
        ("dpo", votes(5, 5), "at least 2 pairs"),
        ("sft", votes(0, 9), "needs corrections, choices or 👍"),
        ("bon", votes(9, 0), "9 liked and 0 disliked"),
    ],
)
def test_what_is_missing_is_named(recipe: str, examples: list[Example], message: str) -> None:
    """A recipe that cannot run on the data says how much of what there is."""
    with pytest.raises(NotEnoughData, match=message):
        plan_recipe(recipe, examples, SETTINGS)


def test_an_unknown_recipe_is_refused() -> None:
    """The known ones are listed."""
    with pytest.raises(InvalidInput, match="expected one of auto"):
        plan_recipe("magic", votes(5, 5), SETTINGS)


def test_settings_override_the_recipes_own_figures() -> None:
    """Zero takes the recipe's own learning rate and epochs, anything else replaces them."""
    own = plan_recipe("apo", votes(5, 5), SETTINGS).stages[0]
    changed = SETTINGS.model_copy(update={"learning_rate": 3e-5, "epochs": 0.5})
    set_ = plan_recipe("apo", votes(5, 5), changed).stages[0]
    assert (own.learning_rate, own.epochs, own.batch_size) == (3e-4, 1.0, 4)
    assert (set_.learning_rate, set_.epochs) == (3e-5, 0.5)


def test_a_correction_and_its_pair_are_one_liked_text() -> None:
    """The unpaired view holds each text once; imitation prefers corrections to likes."""
    texts = unpaired([*corrections(1), vote(True, prompt="liked")])
    assert sorted((text.completion, text.label) for text in texts) == [
        ("no no", False), ("yes yes", True), ("yes yes", True),
    ]  # fmt: skip
    assert len(imitable([*corrections(1), vote(True, prompt="liked")])) == 1


def test_best_of_n_takes_votes_or_pairs_and_keeps_its_own_pace() -> None:
    """It learns from draws; a batch size of 0 leaves it the one it was measured with."""
    for examples in (votes(4, 4), [pair(prompt=f"p{i}") for i in range(9)]):
        (stage,) = plan_recipe("bon", examples, TrainingSettings(min_examples=4)).stages
        assert (stage.method, stage.on, stage.batch_size) == ("dpo", "draws", 2)
