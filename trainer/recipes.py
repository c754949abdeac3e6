"""Which training a data set gets: the named recipes, and `auto`, which chooses and says why.

Also owns what each method learns from (the three views at the end), so that a plan is judged on
exactly what will be trained on. Knows no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from core.errors import InvalidInput, NotEnoughData
from core.jobs import (
    DemonstrationExample,
    Example,
    PairExample,
    Stage,
    VoteExample,
)
from core.sections import TrainingSettings

RECIPES = ("auto", "bon", "sft", "kto", "apo", "dpo")

MIN_EACH_SIDE = 2
"""Fewer liked or disliked texts than this say nothing about what tells them apart."""
MIN_FOR_SFT_STAGE = 8
"""Corrections from which imitating them first is worth a stage of its own: one batch."""
MANY_CORRECTIONS = 64
"""Corrections from which their pairs are worth a stage too."""

_SFT = Stage(method="sft", loss="nll", learning_rate=2e-4, epochs=2.0)
_SFT_FIRST = Stage(method="sft", loss="nll", learning_rate=1e-4, epochs=1.0)
_KTO = Stage(method="kto", loss="kto", learning_rate=2e-4, epochs=1.0)
_APO = Stage(method="kto", loss="apo_zero_unpaired", learning_rate=3e-4, epochs=1.0, beta=0.4)
_DPO = Stage(method="dpo", loss="sigmoid", learning_rate=5e-5, epochs=1.0)
KEPT_OUT = 0.9
"""The share of what plain questions use that a stage beside draws stays out of."""
_BON = Stage(
    method="dpo",
    loss="sigmoid",
    learning_rate=4e-4,
    epochs=1.0,
    beta=0.1,
    batch_size=2,
    on="draws",
    stop_margin=40.0,
    keep_known=True,
    keep_out=KEPT_OUT,
)


@dataclass(frozen=True, slots=True)
class Plan:
    """The stages to train, one after another on the same adapter, and in one sentence why these."""

    name: str
    stages: list[Stage]
    why: str


@dataclass(frozen=True, slots=True)
class Unpaired:
    """A text on its own, liked or not."""

    source: Example
    completion: str
    complete: bool
    label: bool
    weight: float


def plan_recipe(requested: str, examples: Sequence[Example], settings: TrainingSettings) -> Plan:
    """Choose the stages; raises NotEnoughData with what is missing, or InvalidInput."""
    if requested not in RECIPES:
        raise InvalidInput(f"recipe {requested!r}: expected one of {', '.join(RECIPES)}")
    if len(examples) < settings.min_examples:
        raise NotEnoughData(
            f"too little to learn from: {_have(examples)}; training starts at "
            f"{settings.min_examples} usable examples (training.min_examples)"
        )
    name, stages, why = _auto(examples) if requested == "auto" else _named(requested)
    for stage in stages:
        _REQUIRE[stage.method if stage.on == "examples" else stage.on](name, examples)
    return Plan(name, [_with_settings(stage, settings) for stage in stages], why)


def _named(requested: str) -> tuple[str, list[Stage], str]:
    stage = {"bon": _BON, "sft": _SFT, "kto": _KTO, "apo": _APO, "dpo": _DPO}[requested]
    return requested, [stage], f"{requested} was asked for"


def _auto(examples: Sequence[Example]) -> tuple[str, list[Stage], str]:
    """Choose by what there is most of, with imitation first if there are corrections for it."""
    liked, disliked = _sides(examples)
    corrections = sum(isinstance(example, DemonstrationExample) for example in examples)
    pairs = sum(isinstance(example, PairExample) for example in examples)
    votes = sum(isinstance(example, VoteExample) for example in examples)
    choices = max(0, pairs - corrections)
    have = _have(examples)
    if not votes and not choices:
        if corrections < MANY_CORRECTIONS:
            return "sft", [_SFT], f"only corrections, and few ({have}): imitate them"
        return (
            "sft+dpo",
            [_SFT_FIRST, _DPO],
            f"only corrections ({have}): imitate, then contrast them",
        )
    first = [_SFT_FIRST] if corrections >= MIN_FOR_SFT_STAGE else []
    imitate = "imitate the corrections, then " if first else ""
    prefix = "sft+" if first else ""
    if pairs > votes:
        return (
            f"{prefix}dpo",
            [*first, _DPO],
            f"mostly pairs ({have}): {imitate}learn from the pairs",
        )
    if min(liked, disliked) >= MIN_EACH_SIDE:
        first = [stage.model_copy(update={"keep_out": KEPT_OUT}) for stage in first]
        return (
            f"{prefix}bon",
            [*first, _BON],
            f"votes ({have}): {imitate}rank new replies by what the votes say, learn from those",
        )
    if liked > disliked:
        return "sft", [_SFT], f"votes of one kind only ({have}): imitate what was liked"
    raise NotEnoughData(
        f"{have}: nothing shows what would be liked; at least {MIN_EACH_SIDE} 👍, corrections or "
        "choices are needed beside the 👎"
    )


def _with_settings(stage: Stage, settings: TrainingSettings) -> Stage:
    return stage.model_copy(
        update={
            "batch_size": settings.batch_size or stage.batch_size,
            "learning_rate": settings.learning_rate or stage.learning_rate,
            "epochs": settings.epochs or stage.epochs,
        }
    )


def _require_imitable(name: str, examples: Sequence[Example]) -> None:
    if not imitable(examples):
        raise NotEnoughData(
            f"recipe {name}: needs corrections, choices or 👍 to imitate; "
            f"there are {_have(examples)}"
        )


def _require_both_sides(name: str, examples: Sequence[Example]) -> None:
    liked, disliked = _sides(examples)
    if min(liked, disliked) < MIN_EACH_SIDE:
        raise NotEnoughData(
            f"recipe {name}: needs at least {MIN_EACH_SIDE} liked and {MIN_EACH_SIDE} disliked "
            f"texts; there are {liked} liked and {disliked} disliked ({_have(examples)})"
        )


def _require_pairs(name: str, examples: Sequence[Example]) -> None:
    if len(pairs(examples)) < MIN_EACH_SIDE:
        raise NotEnoughData(
            f"recipe {name}: needs at least {MIN_EACH_SIDE} pairs (corrections, choices between "
            f"two replies, or a better second reply); there are {_have(examples)}"
        )


def _require_opinions(name: str, examples: Sequence[Example]) -> None:
    """A reward model wants something to tell apart: both thumbs, or pairs."""
    if len(pairs(examples)) < MIN_EACH_SIDE:
        _require_both_sides(name, examples)


_REQUIRE: dict[str, Callable[[str, Sequence[Example]], None]] = {
    "sft": _require_imitable,
    "kto": _require_both_sides,
    "dpo": _require_pairs,
    "draws": _require_opinions,
}


def _sides(examples: Sequence[Example]) -> tuple[int, int]:
    texts = unpaired(examples)
    liked = sum(text.label for text in texts)
    return liked, len(texts) - liked


def _have(examples: Sequence[Example]) -> str:
    labels = [example.label for example in examples if isinstance(example, VoteExample)]
    corrections = sum(isinstance(example, DemonstrationExample) for example in examples)
    return (
        f"{sum(labels)} 👍, {len(labels) - sum(labels)} 👎, {corrections} corrections, "
        f"{len(pairs(examples))} pairs"
    )


def imitable(examples: Sequence[Example]) -> list[Unpaired]:
    """Return what SFT imitates: corrections and chosen replies; without any, the liked replies."""
    liked = [text for text in unpaired(examples) if text.label]
    better = [text for text in liked if not isinstance(text.source, VoteExample)]
    return better or liked


def unpaired(examples: Sequence[Example]) -> list[Unpaired]:
    """Return every text once with its side, for KTO: a pair gives two.

    Votes go before pairs, and of two pairs' words on one text the heavier stands.
    """
    texts: dict[tuple[object, ...], Unpaired] = {}
    ranked = sorted(
        examples, key=lambda example: (isinstance(example, PairExample), -example.weight)
    )
    for example in ranked:
        for text in _sides_of(example):
            prompt = tuple((message.role, message.content) for message in example.prompt)
            texts.setdefault((prompt, text.completion.strip()), text)
    return list(texts.values())


def pairs(examples: Sequence[Example]) -> list[PairExample]:
    """Return what DPO learns from."""
    return [example for example in examples if isinstance(example, PairExample)]


def _sides_of(example: Example) -> list[Unpaired]:
    if isinstance(example, PairExample):
        return [
            Unpaired(example, example.chosen, example.chosen_complete, True, example.weight),
            Unpaired(example, example.rejected, example.rejected_complete, False, example.weight),
        ]
    label = not isinstance(example, VoteExample) or example.label
    return [Unpaired(example, example.completion, example.complete, label, example.weight)]
