"""How strong a trained adapter is made: as strong as it can be without forgetting.

What an adapter adds to the base can be scaled. Going part of the way back gives back more of what
the base knew than it takes of what was learnt (WiSE-FT, Wortsman et al. 2022), and how far is
different from run to run. So strengths are tried from the greatest on, and the first one is taken
at which plain questions are still answered as before: those of trainer/tuneset.jsonl that the base
itself answers well. No question of the keep-set is among them, so that the gate's keep-set stays a
test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from peft.tuners.lora import LoraLayer

from trainer.keepset import MAX_TOKENS, KeepItem, load_items
from trainer.sampling import Drawing, draw_replies
from trainer.scoring import System, Systems, Texts

TUNESET = "tuneset.jsonl"
STRENGTHS = (1.0, 0.8, 0.6, 0.45, 0.3, 0.2)
MOST_LOST = 1
"""Questions, of about thirty-six, that may be lost: a reply may change by chance."""

BATCH = 64

Progress = Callable[[float], None]


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


def choose_strength(
    model: Any, texts: Texts, on_progress: Progress = lambda fraction: None
) -> Strength:
    """Return the greatest strength at which hardly anything is forgotten, or the least there is.

    `model` is a PeftModel with the candidate active; its weights are left as they are. The greatest
    too where the base knows none of the answers.
    """
    systems = Systems(model.eval())
    items = load_items(TUNESET)
    good = _answers(systems, "base", texts, items)
    known = [item for item, answered in zip(items, good, strict=True) if answered]
    lost: dict[float, int] = {}
    for place, strength in enumerate(STRENGTHS, start=1):
        on_progress(place / (len(STRENGTHS) + 1))
        with _scaled(model, strength):
            lost[strength] = _answers(systems, "candidate", texts, known).count(False)
        if lost[strength] <= MOST_LOST:
            break
    return Strength(strength, len(known), lost)


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
