"""How strong a trained adapter is made: as strong as it can be without forgetting.

What an adapter adds to the base can be scaled. Going part of the way back gives back more of what
the base knew than it takes of what was learnt (WiSE-FT, Wortsman et al. 2022); going on in the
direction that training took often teaches more of it (ExPO, Zheng et al. 2024). How
far is different from run to run. So the greatest strength is looked for at which plain questions
are still answered as before: those of trainer/tuneset.jsonl that the base itself answers well, and
by more than a hair: when it draws its answer, too. No question of the keep-set is among them, so
that the gate's keep-set stays a test. Nor may replies to people's own prompts repeat themselves
more than the base's do, nor be of another length altogether: an adapter that is pushed too far
begins to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from math import log
from statistics import fmean
from typing import Any

from peft.tuners.lora import LoraLayer

from trainer.figures import repeated_share
from trainer.keepset import MAX_TOKENS, KeepItem, load_items
from trainer.sampling import Drawing, draw_replies
from trainer.scoring import System, Systems, Texts, in_base_type

TUNESET = "tuneset.jsonl"
TRAINED = 1.0
STRONGER, WEAKER = (1.5, 1.25), (0.8, 0.65, 0.5, 0.4, 0.32, 0.25)
"""As multiples of what was trained, in the order in which they are tried."""
STRONGEST = 2.0
"""Tried where no question is lost at the first of the stronger ones."""
MOST_LOST = 2
"""Questions, of about twenty, that may be lost as trained or below."""
MOST_LOST_BEYOND = 1
"""Questions that may be lost at more: where two were, the keep-set lost up to five of 38."""
STEADY = 0.7
"""The temperature at which the base must answer a question well, too: many greedy answers turn at
any touch, and say nothing about forgetting."""
MOST_REPEATED = 0.03
"""By how much the share of repeated 4-grams may be above the base's, in all replies but the worst:
one that is stuck would decide alone."""
MOST_STRETCHED = 1.65
"""The factor by which the mean length may change, either way: less than the gate allows, which
hears other prompts. Of a brief adapter's replies some are short and some as long as before, so that
the gate's median falls all at once: at 0.6 of the mean length it is about half, at 0.5 it may be
less than a third."""
FAR = 1.25
"""So many times that bound, as logarithms: where a length would still change by more, were that in
proportion to the strength, a strength is not tried (docs/decisions/031)."""
TOKENS = 80
"""How long the replies to people's prompts are at most that show it: half of what is repeated in
them stands after the first 48, and cut there the base's would make short ones look less short."""

BATCH = 64


@dataclass(frozen=True, slots=True)
class Cost:
    """What a strength costs: by how much the share of repeated 4-grams rises above the base's, the
    mean length as a multiple of the base's, and questions `lost`; None where the other two are
    too much already and none was asked.
    """

    repeated: float
    stretched: float
    lost: int | None = None

    def bearable(self, most_lost: int = MOST_LOST) -> bool:
        """Say whether it may be paid where so many questions may be lost."""
        return (
            (self.lost or 0) <= most_lost
            and self.repeated <= MOST_REPEATED
            and self.factor <= MOST_STRETCHED
        )

    @property
    def factor(self) -> float:
        """Return by how much the length changes, either way."""
        return max(self.stretched, 1 / self.stretched)


@dataclass(frozen=True, slots=True)
class Strength:
    """The strength taken, how many questions were asked, and what each strength tried did."""

    value: float
    asked: int
    tried: dict[float, Cost]

    def as_dict(self) -> dict[str, Any]:
        """Return it for a report; JSON has no numbers as keys."""
        tried = {str(strength): asdict(cost) for strength, cost in self.tried.items()}
        return {"value": self.value, "asked": self.asked, "tried": tried}


def choose_strength(model: Any, texts: Texts, prompts: Sequence[Sequence[int]] = ()) -> Strength:
    """Return the greatest strength whose cost is bearable, or the least there is.

    More than was trained is tried where that is bearable, STRONGEST where the next less loses no
    question. `model` is a PeftModel with the candidate active; its weights are left as they are.
    `prompts` are people's own, as token ids.
    """
    systems = Systems(model.eval())
    items = load_items(TUNESET)
    known = items
    for temperature in (0.0, STEADY):
        good = _answers(systems, "base", texts, known, temperature)
        known = [item for item, answered in zip(known, good, strict=True) if answered]
    before = _talk(systems, "base", prompts, texts)

    def cost_of(strength: float) -> Cost:
        with in_base_type(model), _scaled(model, strength):
            after = _talk(systems, "candidate", prompts, texts)
            rise = round(after.repeated - before.repeated, 4)
            cost = Cost(rise, round(after.length / before.length, 2))
            if not cost.bearable():
                return cost
            return replace(cost, lost=_answers(systems, "candidate", texts, known).count(False))

    tried: dict[float, Cost] = {}

    def bears(strength: float) -> bool:
        tried[strength] = cost_of(strength)
        return tried[strength].bearable(MOST_LOST if strength <= TRAINED else MOST_LOST_BEYOND)

    if bears(TRAINED):
        value = next(filter(bears, STRONGER), TRAINED)
        if value == STRONGER[0] and known and tried[value].lost == 0 and bears(STRONGEST):
            value = STRONGEST
    else:
        value = next(filter(bears, _weaker(tried)), WEAKER[-1])
    return Strength(value, len(known), tried)


def _weaker(tried: Mapping[float, Cost]) -> Iterator[float]:
    """Yield what is to be tried below what was trained, but for the least; `tried` grows."""
    last, most = TRAINED, FAR * log(MOST_STRETCHED)
    for strength in WEAKER[:-1]:
        if log(tried[last].factor) * strength / last <= most:
            yield strength
            last = strength


@dataclass(frozen=True, slots=True)
class _Talk:
    """Replies as people get them: mean share of repeated 4-grams (the worst left out), mean
    tokens.
    """

    repeated: float
    length: float


def _talk(
    systems: Systems, system: System, prompts: Sequence[Sequence[int]], texts: Texts
) -> _Talk:
    """Draw a reply to each prompt; without any nothing is repeated and all is one token long."""
    drawing = Drawing(
        end_ids=frozenset({texts.end_id}),
        max_tokens=TOKENS,
        temperature=0.7,
        top_p=0.95,
        batch=BATCH,
    )
    if not prompts:
        return _Talk(0.0, 1.0)
    said = [reply.token_ids for reply in draw_replies(systems, system, prompts, drawing)]
    repeated = sorted(map(repeated_share, said))
    return _Talk(fmean(repeated[:-1] or [0.0]), max(1.0, fmean(map(len, said))))


def _answers(
    systems: Systems,
    system: System,
    texts: Texts,
    items: Sequence[KeepItem],
    temperature: float = 0.0,
) -> list[bool]:
    """Return which questions are answered well."""
    said = _replies(systems, system, texts, items, temperature)
    return [item.passes(text) for item, text in zip(items, said, strict=True)]


def _replies(
    systems: Systems,
    system: System,
    texts: Texts,
    items: Sequence[KeepItem],
    temperature: float = 0.0,
) -> list[str]:
    drawn = draw_replies(
        systems,
        system,
        [texts.prompt([{"role": "user", "content": item.prompt}]) for item in items],
        Drawing(frozenset({texts.end_id}), MAX_TOKENS, temperature, batch=BATCH),
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
