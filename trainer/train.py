"""Train one stage of a job with TRL's stable trainers: SFT, KTO (`kto`, `apo_zero_unpaired`) or
DPO.

Every stage starts the same way: the base model with a fresh LoRA from `peft_config`, so that TRL's
reference is the base with the adapter off; then the weights of the stage before, if any, are put
into that LoRA. (Passing a PeftModel instead would make a frozen copy of the adapter the reference.)

Data goes in as token ids in a fixed order (trainer.laid), the trainers are in trainer.trainers.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import TrainerCallback

from core.jobs import Example, JobSpec, Stage
from core.manifest import WEIGHTS
from trainer.checkpoints import CheckpointEvery, newest_whole_checkpoint
from trainer.faults import EXIT_LOSS, JobFault
from trainer.fit import Fit, group_rows
from trainer.keep_out import STEP_FACTOR, KeepOut, own_directions, plain_directions
from trainer.laid import lay_out
from trainer.recipes import Unpaired, unpaired
from trainer.reference import use_base_as_reference
from trainer.scoring import Scored
from trainer.tokens import Encoder
from trainer.trainers import make_trainer

OWN_TEXTS = 24
"""So many of the texts to learn from say what an adapter starts in."""
STOP_STEPS = 6
"""The margin of one batch is noise; that of so many in a row says how far training has come."""


class LossNotFinite(JobFault):
    """The loss became infinite or not a number."""

    exit_code = EXIT_LOSS


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
    plain: Sequence[Example] = (),
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
    loaded already and changed by this. `plain` are the questions that it is kept out of where the
    stage says so.
    """
    kept_out = stage.keep_out if plain else None
    if kept_out is not None:
        rate = stage.learning_rate * STEP_FACTOR
        stage = stage.model_copy(update={"learning_rate": rate})
    laid = lay_out(spec, stage, examples, encoder, of=group_rows(spec, stage))
    order, fit = laid.order, fit or Fit(laid.order.batch_size // spec.gpus)
    trainer = make_trainer(spec, stage, laid, encoder=encoder, scratch=scratch, fit=fit, base=base)
    if before is not None:
        set_peft_model_state_dict(trainer.model, load_file(before / WEIGHTS))
    began = time.monotonic()
    if stage.method != "sft" and not trainer.is_fsdp_enabled:  # there TRL asks the base as it goes
        use_base_as_reference(trainer, encoder.tokenizer.pad_token_id, scratch)
    reference_s = time.monotonic() - began
    enough = stage.stop_margin and stage.beta * stage.stop_margin
    watch = _Watch(on_step, enough or math.inf)
    trainer.add_callback(watch)
    if kept_out is not None:
        own = [] if before else [example for example in examples if example not in plain]
        trainer.add_callback(_keep_out(trainer.model, spec, kept_out, encoder, plain, own))
    trainer.add_callback(CheckpointEvery(checkpoint_s))
    checkpoint = newest_whole_checkpoint(scratch) if resume else None
    began = time.monotonic()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    train_s = time.monotonic() - began
    done = len(order.rows) - order.batch_size * (_step_of(checkpoint) if checkpoint else 0)
    metrics = {
        **fit.as_dict(),
        "examples": laid.examples,
        "batch_size": order.batch_size,
        "reference_s": round(reference_s, 3),
        "train_s": round(train_s, 3),
        "examples_per_s": round(done / (reference_s + train_s), 3),
        **watch.figures(trainer.state.global_step),
    }
    return Trained(trainer.model, metrics)


def _keep_out(
    model: Any,
    spec: JobSpec,
    share: float,
    encoder: Encoder,
    plain: Sequence[Example],
    own: Sequence[Example],
) -> KeepOut:
    """Close what plain questions use to an adapter; a fresh one is set on what `own` texts use."""
    liked = [one for one in unpaired(plain) if one.label]
    closed = plain_directions(model, _as_rows(liked, encoder), share, spec.seed)
    texts = unpaired(own)
    if not texts:
        return KeepOut(model, closed, None)
    some = random.Random(spec.seed).sample(texts, min(OWN_TEXTS, len(texts)))
    start = own_directions(model, _as_rows(some, encoder), closed, spec.lora_rank, spec.seed)
    return KeepOut(model, closed, start)


def _as_rows(texts: Sequence[Unpaired], encoder: Encoder) -> list[Scored]:
    found = []
    for text in texts:
        reply = encoder.completion(text.completion, complete=text.complete)
        prompt = encoder.prompt(text.source.prompt, room=encoder.max_length - len(reply))
        found.append(Scored(prompt, reply))
    return found


class _Watch(TrainerCallback):
    """Hands each step's figures on; ends training on a loss that is no number, and once the margin
    of rewards has been `enough` over the last steps.
    """

    def __init__(self, on_step: Callable[[Step], None], enough: float) -> None:
        self._on_step = on_step
        self._enough = enough
        self.losses: list[float] = []
        self.margins: list[float] = []

    def figures(self, steps: int) -> dict[str, Any]:
        """Return how the stage went in so many steps; a loss is None where none was taken."""
        return {
            "steps": steps,
            "first_loss": self.losses[0] if self.losses else None,
            "last_loss": _mean(self.losses[-5:]),
            "last_margin": _mean(self.margins[-5:]),
        }

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
