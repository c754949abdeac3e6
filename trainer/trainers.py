"""TRL's trainers as this job uses them: our data, our order, weights of rows, a quicker pass.

Nothing is shuffled, cut or closed with an end mark behind our back. An example's weight scales the
gradient of its log-probabilities: exact for each of the losses, with the trainers' own loss code
untouched; the losses printed are unweighted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer
from trl.trainer.kto_config import KTOConfig
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference, KTOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling, SFTTrainer

from core.jobs import JobSpec, Stage
from trainer.batches import Row
from trainer.checkpoints import KEPT
from trainer.fit import Fit
from trainer.forward import PackedForward, quick_forward
from trainer.laid import Laid
from trainer.model import choose_device, load_base, lora_config
from trainer.tokens import Encoder

WARM_UP = 0.1
SIDE_RATIO = 7 / 6
"""Weight·count of liked to disliked texts: the middle of the range 1 to 4/3 of the KTO paper's
equation 8."""


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
            outputs = model(*inputs, **named)
            log_probs: Any = outputs.log_probs  # (B, T - 1); DPO: (2B, T - 1), chosen then rejected
            if log_probs.requires_grad:
                by_row = weights.repeat(len(log_probs) // len(weights)).unsqueeze(1)
                log_probs.register_hook(lambda gradient: gradient * by_row)
            return outputs

        return super().compute_loss(weighted, inputs, *args, **kwargs)  # type: ignore[misc, no-any-return]


class _Sft(_OurData, SFTTrainer):
    pass


class _Kto(_OurData, KTOTrainer):
    """Its KL term is that of all the rows of a step, however many passes they take."""

    _divergence: torch.Tensor | None = None

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """Return the passes of the next step, as transformers does."""
        found = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._divergence = None
        if self.calculate_KL and len(found[0]) > 1:
            self.model_wrapped.train()
            self._divergence = torch.cat([self._distances(batch) for batch in found[0]]).mean()
        return found

    def _distances(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return how much likelier than under the base the other prompts' completions are. (B,)"""
        inputs = self._prepare_inputs({k: v for k, v in batch.items() if k != "weight"})
        logps: torch.Tensor = super()._compute_kl_logps(self.model_wrapped, inputs)  # type: ignore[no-untyped-call]
        return logps - inputs["ref_KL_logps"]

    def _compute_kl_logps(self, model: Any, batch: dict[str, Any]) -> torch.Tensor | None:
        if self._divergence is None:
            return super()._compute_kl_logps(model, batch)  # type: ignore[no-any-return, no-untyped-call]
        return batch["ref_KL_logps"] + self._divergence  # type: ignore[no-any-return]


class _Dpo(_OurData, DPOTrainer):
    pass


class _Weighted:
    """A collator that adds the rows' weights to what TRL's own makes."""

    def __init__(self, collate: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> None:
        self._collate = collate

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        batch = self._collate(features)
        return {**batch, "weight": torch.tensor([feature["weight"] for feature in features])}


def make_trainer(
    spec: JobSpec,
    stage: Stage,
    laid: Laid,
    *,
    encoder: Encoder,
    scratch: Path,
    fit: Fit,
    base: Any,
) -> Any:
    arguments, features = _arguments(spec, stage, fit, scratch), laid.features
    pad = encoder.tokenizer.pad_token_id
    kind: Any
    config: Any
    collator: Any
    if stage.method == "sft":
        kind, collator = _Sft, DataCollatorForLanguageModeling(pad)
        config = SFTConfig(**arguments)
        features = [_labelled(feature) for feature in features]
    elif stage.method == "kto":
        kind, collator = _Kto, DataCollatorForUnpairedPreference(pad)
        liked, disliked = side_weights(laid.order.rows)
        sides: dict[str, Any] = {"desirable_weight": liked, "undesirable_weight": disliked}
        config = KTOConfig(**arguments, **sides, beta=stage.beta, loss_type=stage.loss)
    else:
        kind, collator = _Dpo, DataCollatorForPreference(pad)
        config = DPOConfig(**arguments, beta=stage.beta, loss_type=[stage.loss])
    trainer = kind(
        model=load_base(spec) if base is None else base,
        args=config,
        train_dataset=Dataset.from_list(features),
        data_collator=_Weighted(collator),
        processing_class=encoder.tokenizer,
        peft_config=lora_config(spec),
    )
    if not trainer.is_fsdp_enabled:  # shards are put together by the model's own forward
        trainer.quick = quick_forward(trainer.model, checkpointing=fit.checkpointing)
    if trainer.quick is not None:
        _pass_quickly(trainer.model, trainer.quick)
    if fit.checkpointing and trainer.quick is None:
        for name in ("gradient_checkpointing", "activation_checkpointing"):  # its older, newer name
            setattr(trainer.args, name, True)
        trainer.model.enable_input_require_grads()
    for parameter in trainer.model.parameters():  # TRL rounds those over a base of 4 bits
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    trainer.remove_callback(PrinterCallback)
    return trainer


def _pass_quickly(model: Any, quick: PackedForward) -> None:
    """Let the model answer its trainer by the quick pass, within whatever the trainer wraps it in:
    what shares gradients between devices watches the model's own calls.
    """
    own = model.forward

    def forward(*inputs: Any, fused_lm_head: bool = False, **named: Any) -> Any:
        if fused_lm_head:
            return quick(*inputs, **named)
        return own(*inputs, **named)

    model.forward = forward


def _shards(spec: JobSpec) -> dict[str, Any]:
    """Return how the base is shared out (FSDP2): a layer is put together while it is passed."""
    if spec.sharding == "none":
        return {}
    return {
        "fsdp": True,
        "fsdp_config": {
            "version": 2,
            "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "state_dict_type": "SHARDED_STATE_DICT",
            "cpu_ram_efficient_loading": False,
        },
    }


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
        **_shards(spec),
        "ddp_find_unused_parameters": False,
        "ddp_broadcast_buffers": False,
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
