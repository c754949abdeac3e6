"""A stage's examples as token ids, batch after batch, in the order they are trained on.

Knows tokenizers and no models, so what a stage will ask of a device is known before it is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import InvalidInput
from core.jobs import Example, JobSpec, Stage
from trainer.batches import Order, Row, order_rows
from trainer.recipes import Unpaired, imitable, pairs, unpaired
from trainer.tokens import Encoder


@dataclass(frozen=True, slots=True)
class Laid:
    """What is trained on: `features` of each row of the order, as the trainers' collators take
    them, each with its weight, scaled to a mean of 1. `examples` are behind them.
    """

    features: list[dict[str, Any]]
    order: Order
    examples: int


def lay_out(
    spec: JobSpec, stage: Stage, examples: Sequence[Example], encoder: Encoder, *, of: int = 1
) -> Laid:
    """Encode a stage's examples and put them in order, batches of a multiple of `of` rows.

    Raises InvalidInput where none is for the stage.
    """
    data = _ENCODE[stage.method](examples, encoder)
    if not data.rows:
        raise InvalidInput(f"stage {stage.method}: none of the {len(examples)} examples is for it")
    order = order_rows(
        data.rows, batch_size=stage.batch_size, epochs=stage.epochs, seed=spec.seed, of=of
    )
    return Laid(_ordered(data, order, stage), order, len(data.rows))


@dataclass(frozen=True, slots=True)
class Encoded:
    """Encoded examples: `features` as the trainer's collator takes them, `rows` for the order."""

    features: list[dict[str, Any]]
    rows: list[Row]


def _sft_data(examples: Sequence[Example], encoder: Encoder) -> Encoded:
    return _unpaired_data(imitable(examples), encoder)


def _kto_data(examples: Sequence[Example], encoder: Encoder) -> Encoded:
    return _unpaired_data(unpaired(examples), encoder)


def _unpaired_data(texts: Sequence[Unpaired], encoder: Encoder) -> Encoded:
    features, rows = [], []
    for index, text in enumerate(texts):
        prompt, completion = encoder.pair(
            text.source.prompt, text.completion, complete=text.complete
        )
        features.append({"prompt_ids": prompt, "completion_ids": completion, "label": text.label})
        rows.append(Row(index, text.label, len(prompt) + len(completion), text.weight))
    return Encoded(features, rows)


def _dpo_data(examples: Sequence[Example], encoder: Encoder) -> Encoded:
    features, rows = [], []
    for index, pair in enumerate(pairs(examples)):
        chosen = encoder.completion(pair.chosen, complete=pair.chosen_complete)
        rejected = encoder.completion(pair.rejected, complete=pair.rejected_complete)
        longest = max(len(chosen), len(rejected))
        prompt = encoder.prompt(pair.prompt, room=encoder.max_length - longest)
        features.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
        rows.append(Row(index, True, len(prompt) + longest, pair.weight))
    return Encoded(features, rows)


_ENCODE: dict[str, Callable[[Sequence[Example], Encoder], Encoded]] = {
    "sft": _sft_data,
    "kto": _kto_data,
    "dpo": _dpo_data,
}


def _ordered(data: Encoded, order: Order, stage: Stage) -> list[dict[str, Any]]:
    """Lay the features out in training order, each with its weight, scaled to a mean of 1."""
    scale = len(order.rows) / math.fsum(row.weight for row in order.rows)
    laid = [{**data.features[row.index], "weight": row.weight * scale} for row in order.rows]
    if stage.loss == "kto":  # its KL term compares with completions of other prompts in the batch
        for start in range(0, len(laid), order.batch_size):
            batch = laid[start : start + order.batch_size]
            for feature, other in zip(batch, [batch[-1], *batch[:-1]], strict=True):
                feature["KL_completion_ids"] = other["completion_ids"]
    return laid
