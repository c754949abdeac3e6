"""Train one stage of a job with TRL's stable trainers: SFT, KTO (`kto`, `apo_zero_unpaired`) or
DPO.

Every stage starts the same way: the base model with a fresh LoRA from `peft_config`, so that TRL's
reference is the base with the adapter off; then the weights of the stage before, if any, are put
into that LoRA. (Passing a PeftModel instead would make a frozen copy of the adapter the reference.)

Data goes in as token ids in a fixed order (trainer.tokens, trainer.batches), so nothing is
shuffled, cut or closed with an end mark behind our back. An example's weight scales the gradient of
its log-probabilities: exact for each of the losses, with the trainers' own loss code untouched; the
losses printed are unweighted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import PrinterCallback, TrainerCallback
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer
from trl.trainer.kto_config import KTOConfig
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference, KTOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling, SFTTrainer

from core.errors import InvalidInput, TrainingError
from core.jobs import Example, JobSpec, Stage
from core.manifest import WEIGHTS
from trainer.batches import Order, Row, order_rows
from trainer.checkpoints import KEPT, CheckpointEvery, newest_whole_checkpoint
from trainer.fit import Fit
from trainer.forward import PackedForward, quick_forward
from trainer.model import choose_device, load_base, lora_config
from trainer.recipes import Unpaired, imitable, pairs, unpaired
from trainer.reference import use_base_as_reference
from trainer.tokens import Encoder

WARM_UP = 0.1
STOP_STEPS = 6
"""The margin of one batch is noise; that of so many in a row says how far training has come."""
SIDE_RATIO = 7 / 6
"""Weight·count of liked to disliked texts: the middle of the range 1 to 4/3 of the KTO paper's
equation 8."""


class LossNotFinite(TrainingError):
    """The loss became infinite or not a number."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of training just done; `loss` in nats (SFT) or the trainer's own unit, `margin` of
    rewards."""

    step: int
    steps: int
    loss: float
    margin: float | None


@dataclass(frozen=True, slots=True)
class Trained:
    """The model after a stage, and its figures."""

    model: Any
    metrics: dict[str, Any]


def train_stage(
    spec: JobSpec,
    stage: Stage,
    examples: Sequence[Example],
    *,
    encoder: Encoder,
    before: Path | None,
    scratch: Path,
    resume: bool,
    checkpoint_s: float,
    on_step: Callable[[Step], None],
    fit: Fit | None = None,
    base: Any = None,
) -> Trained:
    """Train one stage from the adapter in `before` (None: fresh), keeping checkpoints in
    `scratch`.

    `fit` says how a batch is laid on the device (None: all at once); `base` is a model that is
    loaded already and changed by this.
    """
    data = _DATA[stage.method](examples, encoder)
    if not data.rows:
        raise InvalidInput(f"stage {stage.method}: none of the {len(examples)} examples is for it")
    order = order_rows(data.rows, batch_size=stage.batch_size, epochs=stage.epochs, seed=spec.seed)
    fit = fit or Fit(order.batch_size)
    trainer = _make_trainer(
        spec, stage, data, order, encoder=encoder, scratch=scratch, fit=fit, base=base
    )
    if before is not None:
        set_peft_model_state_dict(trainer.model, load_file(before / WEIGHTS))
    began = time.monotonic()
    if stage.method != "sft":
        use_base_as_reference(trainer, encoder.tokenizer.pad_token_id, scratch)
    reference_s = time.monotonic() - began
    enough = stage.stop_margin and stage.beta * stage.stop_margin
    watch = _Watch(on_step, enough or math.inf)
    trainer.add_callback(watch)
    trainer.add_callback(CheckpointEvery(checkpoint_s))
    checkpoint = newest_whole_checkpoint(scratch) if resume else None
    began = time.monotonic()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    train_s = time.monotonic() - began
    done = len(order.rows) - order.batch_size * (_step_of(checkpoint) if checkpoint else 0)
    metrics = {
        "examples": len(data.rows),
        "steps": trainer.state.global_step,
        "batch_size": order.batch_size,
        "reference_s": round(reference_s, 3),
        "train_s": round(train_s, 3),
        "examples_per_s": round(done / (reference_s + train_s), 3),
        "first_loss": watch.losses[0] if watch.losses else None,
        "last_loss": _mean(watch.losses[-5:]),
        "last_margin": _mean(watch.margins[-5:]),
    }
    return Trained(trainer.model, metrics)


@dataclass(frozen=True, slots=True)
class _Data:
    """Encoded examples: `features` as the trainer's collator takes them, `rows` for the order."""

    features: list[dict[str, Any]]
    rows: list[Row]


def _sft_data(examples: Sequence[Example], encoder: Encoder) -> _Data:
    return _unpaired_data(imitable(examples), encoder)


def _kto_data(examples: Sequence[Example], encoder: Encoder) -> _Data:
    return _unpaired_data(unpaired(examples), encoder)


def _unpaired_data(texts: Sequence[Unpaired], encoder: Encoder) -> _Data:
    features, rows = [], []
    for index, text in enumerate(texts):
        prompt, completion = encoder.pair(
            text.source.prompt, text.completion, complete=text.complete
        )
        features.append({"prompt_ids": prompt, "completion_ids": completion, "label": text.label})
        rows.append(Row(index, text.label, len(prompt) + len(completion), text.weight))
    return _Data(features, rows)


def _dpo_data(examples: Sequence[Example], encoder: Encoder) -> _Data:
    features, rows = [], []
    for index, pair in enumerate(pairs(examples)):
        chosen = encoder.completion(pair.chosen, complete=pair.chosen_complete)
        rejected = encoder.completion(pair.rejected, complete=pair.rejected_complete)
        longest = max(len(chosen), len(rejected))
        prompt = encoder.prompt(pair.prompt, room=encoder.max_length - longest)
        features.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
        rows.append(Row(index, True, len(prompt) + longest, pair.weight))
    return _Data(features, rows)


_DATA: dict[str, Callable[[Sequence[Example], Encoder], _Data]] = {
    "sft": _sft_data,
    "kto": _kto_data,
    "dpo": _dpo_data,
}


class _OurData:
    """What each of the trainers is told: the data is ready, its rows have weights, and there may be
    a quicker way through the model.
    """

    quick: PackedForward | None = None

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write none: an adapter holds its content files only."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Return the trainer's own loss, whose gradient is weighted by row.

        Holds for every loss that is a sum over rows of functions of the row's own log-
        probabilities.
        """
        weights = inputs.pop("weight")  # (B,) mean 1 over the data

        def weighted(*inputs: Any, **named: Any) -> Any:
            outputs = (self.quick or model)(*inputs, **named)
            log_probs: Any = outputs.log_probs  # (B, T - 1); DPO: (2B, T - 1), chosen then rejected
            if log_probs.requires_grad:
                by_row = weights.repeat(len(log_probs) // len(weights)).unsqueeze(1)
                log_probs.register_hook(lambda gradient: gradient * by_row)
            return outputs

        return super().compute_loss(weighted, inputs, *args, **kwargs)  # type: ignore[misc, no-any-return]


class _Sft(_OurData, SFTTrainer):
    pass


class _Kto(_OurData, KTOTrainer):
    pass


class _Dpo(_OurData, DPOTrainer):
    pass


class _Weighted:
    """A collator that adds the rows' weights to what TRL's own makes."""

    def __init__(self, collate: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> None:
        self._collate = collate

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        batch = self._collate(features)
        return {**batch, "weight": torch.tensor([feature["weight"] for feature in features])}


def _make_trainer(
    spec: JobSpec,
    stage: Stage,
    data: _Data,
    order: Order,
    *,
    encoder: Encoder,
    scratch: Path,
    fit: Fit,
    base: Any,
) -> Any:
    arguments = _arguments(spec, stage, fit, scratch)
    pad = encoder.tokenizer.pad_token_id
    ordered = _ordered(data, order, stage)
    kind: Any
    config: Any
    collator: Any
    if stage.method == "sft":
        kind, collator = _Sft, DataCollatorForLanguageModeling(pad)
        config = SFTConfig(**arguments)
        ordered = [_labelled(feature) for feature in ordered]
    elif stage.method == "kto":
        kind, collator = _Kto, DataCollatorForUnpairedPreference(pad)
        liked, disliked = side_weights(order.rows)
        sides: dict[str, Any] = {"desirable_weight": liked, "undesirable_weight": disliked}
        config = KTOConfig(**arguments, **sides, beta=stage.beta, loss_type=stage.loss)
    else:
        kind, collator = _Dpo, DataCollatorForPreference(pad)
        config = DPOConfig(**arguments, beta=stage.beta, loss_type=[stage.loss])
    trainer = kind(
        model=load_base(spec) if base is None else base,
        args=config,
        train_dataset=Dataset.from_list(ordered),
        data_collator=_Weighted(collator),
        processing_class=encoder.tokenizer,
        peft_config=lora_config(spec),
    )
    if trainer.accelerator.num_processes == 1:  # several share gradients through their own forward
        trainer.quick = quick_forward(trainer.model, checkpointing=fit.checkpointing)
    if fit.checkpointing and trainer.quick is None:
        trainer.args.gradient_checkpointing = True
        trainer.model.enable_input_require_grads()
    for parameter in trainer.model.parameters():  # TRL rounds those over a base of 4 bits
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    trainer.remove_callback(PrinterCallback)
    return trainer


def _arguments(spec: JobSpec, stage: Stage, fit: Fit, scratch: Path) -> dict[str, Any]:
    device = choose_device(spec.device)
    return {
        "output_dir": str(scratch),
        "per_device_train_batch_size": fit.rows,
        "gradient_accumulation_steps": fit.passes,
        "num_train_epochs": 1,  # the order already holds every pass
        "learning_rate": stage.learning_rate,
        "warmup_steps": WARM_UP,  # below 1: a share of the steps
        "train_sampling_strategy": "sequential",
        "remove_unused_columns": False,
        "max_length": None,  # the encoder has seen to it, from the left
        "bf16": False,  # the base's own type holds; no autocast
        "gradient_checkpointing": False,
        "dataloader_pin_memory": device == "cuda",
        "use_cpu": device == "cpu",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",  # CheckpointEvery asks by the clock
        "save_total_limit": KEPT,
        "report_to": spec.report_to,
        "disable_tqdm": True,
        "seed": spec.seed,
    }


def _ordered(data: _Data, order: Order, stage: Stage) -> list[dict[str, Any]]:
    """Lay the features out in training order, each with its weight, scaled to a mean of 1."""
    scale = len(order.rows) / math.fsum(row.weight for row in order.rows)
    laid = [{**data.features[row.index], "weight": row.weight * scale} for row in order.rows]
    if stage.loss == "kto":  # its KL term compares with completions of other prompts in the batch
        for start in range(0, len(laid), order.batch_size):
            batch = laid[start : start + order.batch_size]
            for feature, other in zip(batch, [batch[-1], *batch[:-1]], strict=True):
                feature["KL_completion_ids"] = other["completion_ids"]
    return laid


def _labelled(feature: dict[str, Any]) -> dict[str, Any]:
    """Return an SFT feature: loss on the completion only."""
    prompt, completion = feature["prompt_ids"], feature["completion_ids"]
    return {
        "input_ids": prompt + completion,
        "labels": [-100] * len(prompt) + completion,
        "weight": feature["weight"],
    }


def side_weights(order: Iterable[Row]) -> tuple[float, float]:
    """Return (desirable, undesirable) weight: one is 1, the rarer side is raised to SIDE_RATIO."""
    sides = {True: 0.0, False: 0.0}
    for row in order:
        sides[row.label] += row.weight
    if not all(sides.values()) or 1 <= sides[True] / sides[False] <= 4 / 3:
        return 1.0, 1.0
    factor = SIDE_RATIO * sides[False] / sides[True]
    return (factor, 1.0) if factor > 1 else (1.0, 1 / factor)


class _Watch(TrainerCallback):
    """Hands each step's figures on; ends training on a loss that is no number, and once the margin
    of rewards has been `enough` over the last steps.
    """

    def __init__(self, on_step: Callable[[Step], None], enough: float) -> None:
        self._on_step = on_step
        self._enough = enough
        self.losses: list[float] = []
        self.margins: list[float] = []

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        if not logs or "loss" not in logs:
            return
        loss, margin = float(logs["loss"]), logs.get("rewards/margins")
        if not math.isfinite(loss):
            raise LossNotFinite(
                f"the loss became {loss} at step {state.global_step} of {state.max_steps}; "
                "try a lower training.learning_rate, or model.dtype float32"
            )
        self.losses.append(loss)
        if margin is not None:
            self.margins.append(float(margin))
            recent = self.margins[-STOP_STEPS:]
            if len(recent) == STOP_STEPS and math.fsum(recent) >= self._enough * STOP_STEPS:
                control.should_training_stop = True
        self._on_step(Step(state.global_step, state.max_steps, loss, margin))


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None
