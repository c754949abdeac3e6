"""A stage of a job from its examples to its published weights: how it fits, where it runs, and what
is done when memory runs out after all.
"""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from core.files import publish_directory
from core.jobs import ChatMessage, Example, JobSpec, Stage
from trainer.batches import Order
from trainer.effort import effort_of
from trainer.faults import EXIT_MEMORY, diagnose
from trainer.fit import (
    Fit,
    check_devices,
    choose_fit,
    find_place,
    group_rows,
    least_rows,
)
from trainer.laid import Laid, lay_out
from trainer.memory import shape_of
from trainer.model import load_tokenizer, save_adapter, scale_adapter
from trainer.ranks import train_on_ranks
from trainer.scoring import Texts
from trainer.split import prompt_key
from trainer.strength import choose_strength
from trainer.tokens import Encoder, make_encoder
from trainer.train import Step, Trained, train_stage

METRICS = "metrics.json"
MOST_HALVINGS = 3
"""So often a stage goes on with less at once after memory ran out; then the reckoning is wrong."""
_HOW_STRONG = "finding how strong it may be without forgetting"


class Tell(Protocol):
    """Writes a line of a stage's progress."""

    def __call__(self, within: float, **line: Any) -> None:
        """Say how far the stage is, in [0, 1]."""
        ...


def foresee(spec: JobSpec, examples: Sequence[Example]) -> Iterator[str]:
    """Yield what each stage will take of the device, before anything is loaded.

    Raises InvalidInput where the devices asked for are not there, NotEnoughMemory.
    """
    check_devices(spec)
    encoder = make_encoder(load_tokenizer(spec), spec.max_length)
    shape, place = shape_of(spec.base_path), find_place(spec)
    for number, stage in enumerate(spec.stages, start=1):
        if stage.on == "draws":
            laid = _to_be_drawn(spec, stage, examples, encoder)
        else:
            laid = lay_out(spec, stage, examples, encoder, of=group_rows(spec, stage))
        fit = choose_fit(spec, stage, laid, shape, place)
        yield f"stage {number} of {len(spec.stages)} ({stage.method}) {fit}"


def _to_be_drawn(
    spec: JobSpec, stage: Stage, examples: Sequence[Example], encoder: Encoder
) -> Laid:
    """Return what a stage on draws may learn from at most: replies as long as they may become."""
    said = [0] * spec.sample_max_tokens
    room = spec.max_length - len(said)
    prompts = {prompt_key(one): encoder.prompt(one.prompt, room=room) for one in examples}
    longest = sorted(prompts.values(), key=len, reverse=True)[: effort_of(spec).pairs]
    rows = [{"prompt_ids": ids, "chosen_ids": said, "rejected_ids": said} for ids in longest]
    of = group_rows(spec, stage)
    size = of * -(-stage.batch_size // of)
    return Laid((rows * size)[: max(size, len(rows))], Order([], size), len(rows))


def train_into(
    target: Path,
    spec: JobSpec,
    stage: Stage,
    examples: Sequence[Example],
    *,
    plain: Sequence[Example] = (),
    heard: Sequence[Sequence[ChatMessage]] = (),
    before: Path | None,
    resume: bool,
    checkpoint_s: float,
    tell: Tell,
) -> None:
    """Train a stage and publish its weights and figures in `target`.

    `plain` are questions that stand among the examples to hold on to what the base knows, `heard`
    the prompts by which its strength is chosen.
    """
    scratch = target.with_name(f"{target.name}.scratch")
    if not resume:
        shutil.rmtree(scratch, ignore_errors=True)
    tell(0.0, message="preparing the examples")
    encoder = make_encoder(load_tokenizer(spec), spec.max_length)
    laid = lay_out(spec, stage, examples, encoder, of=group_rows(spec, stage))
    fit = choose_fit(spec, stage, laid, shape_of(spec.base_path), find_place(spec))
    tell(0.0, message=str(fit))
    named: dict[str, Any] = {
        "before": before,
        "scratch": scratch,
        "checkpoint_s": checkpoint_s,
        "on_step": _step_teller(tell),
    }
    if spec.gpus == 1:  # of several each may have a part of a matrix
        named["plain"] = plain
    trained = _train(spec, stage, examples, encoder, fit, tell, resume=resume, **named)
    metrics = dict(trained.metrics)
    if stage.keep_known:
        tell(1.0, message=_HOW_STRONG)
        texts = Texts(load_tokenizer(spec), spec.max_length)
        chats = [[turn.model_dump() for turn in prompt] for prompt in heard]
        found = choose_strength(trained.model, texts, [texts.prompt(chat) for chat in chats])
        scale_adapter(trained.model, found.value)
        metrics["strength"] = found.as_dict()

    def fill(path: Path) -> None:
        save_adapter(trained.model, path, spec.base_model)
        (path / METRICS).write_text(json.dumps(metrics), encoding="utf-8")

    publish_directory(target, fill)
    shutil.rmtree(scratch, ignore_errors=True)


def _step_teller(tell: Tell) -> Callable[[Step], None]:
    def on_step(step: Step) -> None:
        tell(
            step.step / step.steps,
            step=step.step,
            steps=step.steps,
            loss=step.loss,
            margin=step.margin,
        )

    return on_step


def _train(
    spec: JobSpec,
    stage: Stage,
    examples: Sequence[Example],
    encoder: Encoder,
    fit: Fit,
    tell: Tell,
    *,
    resume: bool,
    **named: Any,
) -> Trained:
    """Train; where memory runs out go on from the last checkpoint with less at once."""
    halvings = 0
    while True:
        release_memory()
        try:
            if spec.gpus > 1:
                return train_on_ranks(spec, stage, examples, fit=fit, resume=resume, **named)
            return train_stage(
                spec, stage, examples, encoder=encoder, fit=fit, resume=resume, **named
            )
        except Exception as error:
            smaller = fit.halved(least_rows(stage))
            if diagnose(error)[0] != EXIT_MEMORY or smaller is None or halvings == MOST_HALVINGS:
                raise
            fit, resume, halvings = smaller, True, halvings + 1
        tell(0.0, message=f"out of memory; going on from the last checkpoint with {fit}")


def release_memory() -> None:
    """Give back what nothing refers to any more, so that others find it free."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
