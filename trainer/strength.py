"""How strong a trained adapter is made: as strong as it can be without forgetting.

What an adapter adds to the base can be scaled. Going part of the way back gives back more of what
the base knew than it takes of what was learnt (WiSE-FT, Wortsman et al. 2022), and how far is
different from run to run. So the greatest strength is looked for at which plain questions are still
answered as before: those of trainer/tuneset.jsonl that the base itself answers well. No question of
the keep-set is among them, so that the gate's keep-set stays a test.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from peft.tuners.lora import LoraLayer

from trainer.keepset import MAX_TOKENS, KeepItem, load_items
from trainer.sampling import Drawing, draw_replies
from trainer.scoring import System, Systems, Texts

TUNESET = "tuneset.jsonl"
STRENGTHS = (1.0, 0.7, 0.5, 0.35, 0.25)
MOST_LOST = 2
"""Questions, of about thirty, that may be lost: some change their answer at any touch."""

BATCH = 64


@dataclass(frozen=True, slots=True)
class Strength:
    """The strength taken, and how many of `asked` questions were lost at each one tried."""

    value: float
    asked: int
    lost: dict[float, int]

    def as_dict(self) -> dict[str, Any]:
        """Return it for a report; JSON has no numbers as keys."""
        lost = {str(strength): count for strength, count in self.lost.items()}
        return {"value": self.value, "asked": self.asked, "lost": lost}


def choose_strength(model: Any, texts: Texts) -> Strength:
    """Return the greatest strength at which hardly anything is forgotten, or the least there is.

    `model` is a PeftModel with the candidate active; its weights are left as they are. The greatest
    too where the base knows none of the answers.
    """
    systems = Systems(model.eval())
    items = load_items(TUNESET)
    good = _answers(systems, "base", texts, items)
    known = [item for item, answered in zip(items, good, strict=True) if answered]
    lost: dict[float, int] = {}
    strongest, weakest = 0, len(STRENGTHS) - 1
    while strongest < weakest:  # what is lost grows with the strength, so half are left each time
        place = (strongest + weakest) // 2
        with _scaled(model, STRENGTHS[place]):
            answered = _answers(systems, "candidate", texts, known)
        lost[STRENGTHS[place]] = answered.count(False)
        if lost[STRENGTHS[place]] <= MOST_LOST:
            weakest = place
        else:
            strongest = place + 1
    return Strength(STRENGTHS[weakest], len(known), lost)


def _answers(
    systems: Systems, system: System, texts: Texts, items: Sequence[KeepItem]
) -> list[bool]:
    """Return which questions are answered well."""
    said = _replies(systems, system, texts, items)
    return [item.passes(text) for item, text in zip(items, said, strict=True)]


def _replies(
    systems: Systems, system: System, texts: Texts, items: Sequence[KeepItem]
) -> list[str]:
    drawn = draw_replies(
        systems,
        system,
        [texts.prompt([{"role": "user", "content": item.prompt}]) for item in items],
        Drawing(end_ids=frozenset({texts.end_id}), max_tokens=MAX_TOKENS, batch=BATCH),
    )
    return [texts.read(reply.token_ids) for reply in drawn]


@contextmanager
def _scaled(model: Any, strength: float) -> Iterator[None]:
    """Let the active adapter add so much of what it adds, while open."""
    name = str(model.active_adapter)
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    before = [layer.scaling[name] for layer in layers]
    try:
        for layer, scaling in zip(layers, before, strict=True):
            layer.scaling[name] = strength * scaling
        yield
    finally:
        for layer, scaling in zip(layers, before, strict=True):
            layer.scaling[name] = scaling
