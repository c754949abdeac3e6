"""The reference of KTO and DPO: each row's log-probability under the base, the adapter off.

Computed once for a stage and kept in its scratch directory, so that a resumed run does not compute
it again. TRL's own pass (`precompute_ref_log_probs`) would repeat it for each epoch and hash the
whole model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

from core.files import write_atomic

_KEPT = "reference.json"
REFERENCE_TOKENS = 4096
"""Tokens in a batch, shared beginnings counted for each row."""
_COLUMNS = {
    "completion_ids": "ref_logps",
    "KL_completion_ids": "ref_KL_logps",
    "chosen_ids": "ref_chosen_logps",
    "rejected_ids": "ref_rejected_logps",
}

Text = tuple[Sequence[int], Sequence[int]]
"""Token ids of a prompt and of its completion."""


def use_base_as_reference(trainer: Any, pad: int, scratch: Path) -> None:
    """Give every row of the trainer's data its log-probability under the base, once and for all."""
    laid = trainer.train_dataset
    wanted: dict[str, list[Text]] = {}
    for column, name in _COLUMNS.items():
        if column in laid.column_names:
            texts = zip(laid["prompt_ids"], laid[column], strict=True)
            wanted[name] = [(tuple(prompt), tuple(completion)) for prompt, completion in texts]
    distinct = list(dict.fromkeys(key for keys in wanted.values() for key in keys))
    kept = scratch / _KEPT
    known = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else []
    if len(known) != len(distinct):
        known = _shared_logps(trainer, distinct, pad)
        if trainer.is_world_process_zero():
            scratch.mkdir(parents=True, exist_ok=True)
            write_atomic(kept, json.dumps(known))
    logps = dict(zip(distinct, known, strict=True))
    for name, keys in wanted.items():
        laid = laid.add_column(name, [logps[key] for key in keys])
    trainer.train_dataset = laid
    trainer.precompute_ref_logps = True  # from here the loss reads the columns just added


def _shared_logps(trainer: Any, texts: Sequence[Text], pad: int) -> list[float]:
    """Return what each text is worth; several devices share the texts out among them."""
    ranks, own = trainer.accelerator.num_processes, trainer.accelerator.process_index
    found = sequence_logps(trainer.model, texts[own::ranks], pad, forward=trainer.quick)
    if ranks == 1:
        return found
    parts: list[list[float]] = [[] for _ in range(ranks)]
    torch.distributed.all_gather_object(parts, found)
    return [parts[place % ranks][place // ranks] for place in range(len(texts))]


def sequence_logps(model: Any, texts: Sequence[Text], pad: int, *, forward: Any) -> list[float]:
    """Return log p(completion | prompt) in nats, summed over its tokens, with the adapter off.

    `forward` is a quicker pass over the same model, or None.
    """
    logps = [0.0] * len(texts)
    collate = DataCollatorForUnpairedPreference(pad)
    for part in _batches(texts):
        batch = collate(
            [
                {"prompt_ids": list(prompt), "completion_ids": list(completion), "label": True}
                for prompt, completion in (texts[i] for i in part)
            ]
        )
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
        with torch.no_grad(), model.disable_adapter():
            log_probs = (forward or model)(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                labels=labels,
                fused_lm_head=True,
                use_cache=False,
            ).log_probs  # (B, T - 1), 0 outside the completion
        for i, value in zip(part, log_probs.float().sum(-1).tolist(), strict=True):
            logps[i] = value
    return logps


def _batches(texts: Sequence[Text]) -> Iterator[list[int]]:
    """Yield places of texts: those of one prompt together, the longest first."""
    longest: dict[tuple[int, ...], int] = {}
    prompts = [tuple(prompt) for prompt, _ in texts]
    for prompt, (_, completion) in zip(prompts, texts, strict=True):
        longest[prompt] = max(longest.get(prompt, 0), len(prompt) + len(completion))
    order = sorted(range(len(texts)), key=lambda i: (-longest[prompts[i]], prompts[i]))
    while order:
        size = max(1, REFERENCE_TOKENS // longest[prompts[order[0]]])
        yield order[:size]
        order = order[size:]
