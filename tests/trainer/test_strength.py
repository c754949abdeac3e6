"""How strong an adapter may be: the greatest strength at which plain questions stay answered."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model

from tests.trainer.rows import DPO, job_spec
from trainer import strength
from trainer.keepset import KeepItem, load_items, load_keepset
from trainer.model import load_base, load_tokenizer, lora_config, scale_adapter
from trainer.scoring import Systems, Texts
from trainer.strength import STRONGER, STRONGEST, TRAINED, TUNESET, WEAKER, Cost, choose_strength


def world(tiny_model: Path, size: float) -> tuple[PeftModel, Texts]:
    """A tiny base with an adapter of random weights; `size` says how much it adds."""
    spec = job_spec(tiny_model, DPO)
    torch.manual_seed(0)
    model = get_peft_model(load_base(spec), lora_config(spec))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=size)
    return model, Texts(load_tokenizer(spec), spec.max_length)


@pytest.fixture
def own_answers(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> list[KeepItem]:
    """Questions whose right answers are whatever the tiny base says to them."""
    model, texts = world(tiny_model, 0.0)
    items = load_items(TUNESET)[:8]
    said = strength._replies(Systems(model), "base", texts, items)
    made = [
        item.model_copy(update={"check": _Same(text)})
        for item, text in zip(items, said, strict=True)
    ]
    monkeypatch.setattr(strength, "load_items", lambda name: made)
    monkeypatch.setattr(strength, "STEADY", 0.0)
    return made


class _Same:
    """A rule that wants one text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def passes(self, reply: str) -> bool:
        return reply == self.text


def test_an_adapter_that_changes_nothing_is_made_as_strong_as_any(
    tiny_model: Path, own_answers: list[KeepItem]
) -> None:
    """Nothing is lost as trained, at more, nor at the strongest, so that is taken."""
    found = choose_strength(*world(tiny_model, 0.0))
    assert (found.value, found.asked) == (STRONGEST, 8)
    lost = {strength: cost.lost for strength, cost in found.tried.items()}
    assert lost == {TRAINED: 0, STRONGER[0]: 0, STRONGEST: 0}


@pytest.mark.parametrize(
    ("lost", "taken"),
    [
        ((2, 1), STRONGER[0]),
        ((0, 2, 1), STRONGER[1]),
        ((2, 2, 2), TRAINED),
        ((0, 0, 0), STRONGEST),
        ((0, 0, 1), STRONGEST),
        ((0, 0, 2), STRONGER[0]),
        ((3, 2), WEAKER[0]),
        ((3, 3, 3, 0), WEAKER[2]),
    ],
)
def test_more_than_was_trained_may_cost_less(
    tiny_model: Path,
    own_answers: list[KeepItem],
    monkeypatch: pytest.MonkeyPatch,
    lost: tuple[int, ...],
    taken: float,
) -> None:
    """Two questions may be lost as trained or below, one above that; the strongest is tried only
    where none is lost at the next less."""
    own = strength._answers
    left = iter((0, 0, *lost))  # the base is asked twice, what it knows

    def answers(*told: Any) -> list[bool]:
        gone = next(left)
        return [False] * gone + own(*told)[gone:]

    monkeypatch.setattr(strength, "_answers", answers)
    found = choose_strength(*world(tiny_model, 0.0))
    assert found.value == taken
    assert tuple(cost.lost for cost in found.tried.values()) == lost


def test_what_the_base_knows_by_a_hair_is_not_asked(
    tiny_model: Path, own_answers: list[KeepItem], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question whose drawn answer is not the likeliest says nothing of forgetting."""
    monkeypatch.setattr(strength, "STEADY", 5.0)
    assert choose_strength(*world(tiny_model, 50.0)).asked == 0


def test_an_adapter_that_forgets_is_weakened_as_far_as_it_goes(
    tiny_model: Path, own_answers: list[KeepItem]
) -> None:
    """Much is lost at every strength tried, so the least is taken; what was tried is told."""
    model, texts = world(tiny_model, 50.0)
    found = choose_strength(model, texts)
    assert found.value == WEAKER[-1]
    assert tuple(found.tried) == (TRAINED, *WEAKER[:-1])
    assert min(cost.lost or 0 for cost in found.tried.values()) > strength.MOST_LOST


def test_trying_strengths_is_what_scaling_does(
    tiny_model: Path, own_answers: list[KeepItem]
) -> None:
    """Replies at half strength are those of the adapter scaled to a half, which stays untouched
    while strengths are tried."""
    model, texts = world(tiny_model, 1.0)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    with strength._scaled(model, 0.5):
        tried = strength._replies(Systems(model), "candidate", texts, own_answers)
    choose_strength(model, texts)
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    scale_adapter(model, 0.5)
    assert strength._replies(Systems(model), "candidate", texts, own_answers) == tried


def test_the_questions_are_neither_in_the_keep_set_nor_trained_on() -> None:
    """What strengths are chosen by is not what the gate tests, nor what is rehearsed."""
    asked = {item.prompt for item in load_items(TUNESET)}
    anchors = files("trainer").joinpath("anchors.txt").read_text(encoding="utf-8").splitlines()
    assert len(asked) == len(load_items(TUNESET))
    assert not asked & {item.prompt for item in load_keepset()}
    assert not asked & set(anchors)


def test_a_base_that_knows_nothing_lets_the_adapter_be_as_strong_as_any(tiny_model: Path) -> None:
    """The tiny base answers none of the real questions: nothing can be lost."""
    found = choose_strength(*world(tiny_model, 1.0))
    assert (found.value, found.asked) == (STRONGER[0], 0)


def test_an_adapter_that_repeats_itself_is_weakened(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny base knows nothing that could be lost; what its replies repeat decides alone."""
    model, texts = world(tiny_model, 1.0)
    monkeypatch.setattr(strength, "MOST_REPEATED", -1.0)
    prompts = [texts.prompt([{"role": "user", "content": f"Tell me {n}"}]) for n in range(4)]
    found = choose_strength(model, texts, prompts)
    assert (found.value, found.asked) == (WEAKER[-1], 0)
    assert all(abs(cost.repeated) < 1 for cost in found.tried.values())
    assert {cost.lost for cost in found.tried.values()} == {None}  # and nothing more is asked


def test_replies_as_long_as_the_bases_are_not_stretched(tiny_model: Path) -> None:
    """The tiny base seldom ends: its replies are cut where its adapter's are."""
    model, texts = world(tiny_model, 0.0)
    prompts = [texts.prompt([{"role": "user", "content": f"Tell me {n}"}]) for n in range(4)]
    found = choose_strength(model, texts, prompts)
    assert found.tried == dict.fromkeys((TRAINED, STRONGER[0]), Cost(0.0, 1.0, 0))


def test_where_replies_are_far_too_short_what_cannot_suffice_is_passed_over(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.27 of the base's length as trained would be 0.52 at 0.5 and 0.59 at 0.4, the first that is
    tried; 0.55 there would be 0.62 at 0.32."""
    lengths = iter((100, 27, 55, 70))  # the base's, then of each strength that is tried

    def talk(*told: Any) -> strength._Talk:
        return strength._Talk(0.0, next(lengths))

    monkeypatch.setattr(strength, "_talk", talk)
    found = choose_strength(*world(tiny_model, 0.0))
    told = {tried: cost.stretched for tried, cost in found.tried.items()}
    assert told == {TRAINED: 0.27, 0.4: 0.55, 0.32: 0.7}
    assert found.value == 0.32


def test_a_cost_is_bearable_within_all_three_bounds() -> None:
    """Two questions, three hundredths more repeated, 1.65 times as long or as short."""
    assert Cost(0.03, 1.0, 2).bearable()
    assert Cost(-0.2, 0.61, 0).bearable()
    assert Cost(0.0, 1.65, 0).bearable()
    assert Cost(0.0, 1.0, 1).bearable(strength.MOST_LOST_BEYOND)
    assert not Cost(0.0, 1.0, 2).bearable(strength.MOST_LOST_BEYOND)
    dear = (Cost(0, 1, 3), Cost(0.0301, 1, 0), Cost(0, 0.6, 0), Cost(0, 1.66, 0))
    assert not any(cost.bearable() for cost in dear)
