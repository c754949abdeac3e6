"""One training run in a process of its own: `python -m benchmarks.training_arm METHOD ARM STEPS`.

ARM is `ours` (trainer.train, as a job trains) or `stock` (TRL's trainer with TRL's defaults). Both
get the same examples, our LoRA shape, our learning rate, batches of eight and the same number of
steps. Prints one JSON object: examples a second from the first step's preparation to the last
step's end, peak memory of the process, and the margin on held-out examples, measured the same way.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.chats import Exchange, exchanges
from benchmarks.common import default_world, peak_memory_mib
from core.jobs import (
    ChatMessage,
    DemonstrationExample,
    Example,
    JobSpec,
    PairExample,
    Stage,
    VoteExample,
)

BATCH = 8
HELD_OUT = 48
LEARNING_RATE = 1e-4
THREADS = 2
_LOSS = {"kto": "kto", "apo": "apo_zero_unpaired", "dpo": "sigmoid", "sft": "nll"}


@dataclass(frozen=True, slots=True)
class Data:
    """The same examples for both arms; the held-out ones are never trained on."""

    train: list[Example]
    held_out: list[Example]


def make_data(method: str, count: int) -> Data:
    """Make `count` examples and HELD_OUT more: short replies are liked, off-topic ones are not."""
    drawn = exchanges(count + HELD_OUT + 1, seed=7, most_turns=1)
    middle = median(len(one.reply) for one in drawn)
    made = [
        _example(method, one, drawn[index + 1], middle, index)
        for index, one in enumerate(drawn[:-1])
    ]
    return Data(made[HELD_OUT:], made[:HELD_OUT])


def _example(method: str, one: Exchange, other: Exchange, middle: float, index: int) -> Example:
    common: dict[str, Any] = {
        "feedback_ids": [f"f{index}"],
        "person": f"p{index % 8}",
        "at": "2026-01-01T00:00:00Z",
        "prompt": [ChatMessage(role=m.role, content=m.content) for m in one.context],
    }
    if method == "dpo":
        return PairExample(**common, chosen=one.reply, rejected=other.reply)
    if method == "sft":
        return DemonstrationExample(**common, completion=one.reply)
    return VoteExample(**common, completion=one.reply, label=len(one.reply) < middle)


def job_spec(base: Any, method: str) -> JobSpec:
    """Return the job that both arms train."""
    stage = Stage(
        method="kto" if method == "apo" else method,
        loss=_LOSS[method],
        learning_rate=LEARNING_RATE,
        epochs=1.0,
        batch_size=BATCH,
    )
    return JobSpec(
        run_id="run_benchmark",
        adapter="bench@v1",
        base_path=str(base.path.resolve()),
        base_model=base.name,
        base_sha256=base.sha256,
        recipe=method,
        why="a benchmark",
        stages=[stage],
        threads=THREADS,
    )


def train_ours(spec: JobSpec, data: Data, home: Path) -> tuple[Any, float]:
    """Train as a job does; return the model and the seconds."""
    from trainer.model import load_tokenizer
    from trainer.tokens import make_encoder
    from trainer.train import train_stage

    encoder = make_encoder(load_tokenizer(spec), spec.max_length)
    trained = train_stage(
        spec,
        spec.stages[0],
        data.train,
        encoder=encoder,
        before=None,
        scratch=home / "scratch",
        resume=False,
        checkpoint_s=3600,
        on_step=lambda step: None,
    )
    return trained.model, trained.metrics["train_s"] + trained.metrics["reference_s"]


def train_stock(spec: JobSpec, data: Data, home: Path) -> tuple[Any, float]:
    """Train with TRL's trainer for the method as its documentation shows."""
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer
    from trl.trainer.kto_config import KTOConfig
    from trl.trainer.kto_trainer import KTOTrainer
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from trainer.model import lora_config
    from trainer.trainers import WARM_UP

    kinds: dict[str, tuple[Any, Any, dict[str, Any]]] = {
        "kto": (KTOTrainer, KTOConfig, {}),
        "apo": (KTOTrainer, KTOConfig, {"loss_type": "apo_zero_unpaired"}),
        "dpo": (DPOTrainer, DPOConfig, {}),
        "sft": (SFTTrainer, SFTConfig, {}),
    }
    kind, config, more = kinds[spec.recipe]
    trainer = kind(
        model=spec.base_path,
        args=config(
            output_dir=str(home),
            use_cpu=not torch.cuda.is_available(),
            num_train_epochs=1,
            learning_rate=LEARNING_RATE,
            warmup_steps=WARM_UP,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            **more,
        ),
        train_dataset=Dataset.from_list([_row(example) for example in data.train]),
        processing_class=AutoTokenizer.from_pretrained(spec.base_path),
        peft_config=lora_config(spec),
    )
    began = time.perf_counter()
    trainer.train()
    return trainer.model, time.perf_counter() - began


def _row(example: Example) -> dict[str, Any]:
    """Return an example as TRL's documentation asks for it, in conversational format."""
    prompt = [message.model_dump() for message in example.prompt]

    def said(text: str) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": text}]

    if isinstance(example, PairExample):
        return {
            "prompt": prompt,
            "chosen": said(example.chosen),
            "rejected": said(example.rejected),
        }
    row = {"prompt": prompt, "completion": said(example.completion)}
    return {**row, "label": example.label} if isinstance(example, VoteExample) else row


def held_out_margins(spec: JobSpec, model: Any, data: Data) -> list[float]:
    """Return what should have grown on each held-out example, in nats: log-ratios to the base.

    Pairs: chosen minus rejected. Votes: the log-ratio, its sign turned for the disliked, around
    their mean. SFT: the log-ratio for each token of the reply.
    """
    from trainer.model import load_tokenizer
    from trainer.scoring import Scored, Systems, Texts, reply_logprobs

    systems = Systems(model.float().eval())  # a short run's changes drown in bfloat16's rounding
    texts = Texts(load_tokenizer(spec), spec.max_length)

    def ratios(replies: list[str]) -> list[float]:
        rows = [
            Scored(
                texts.prompt([message.model_dump() for message in example.prompt]),
                texts.reply(reply, complete=True),
            )
            for example, reply in zip(data.held_out, replies, strict=True)
        ]
        own, base = (reply_logprobs(systems, system, rows) for system in ("candidate", "base"))
        return [a - b for a, b in zip(own, base, strict=True)]

    if spec.recipe == "dpo":
        chosen = ratios([example.chosen for example in data.held_out])  # type: ignore[union-attr]
        rejected = ratios([example.rejected for example in data.held_out])  # type: ignore[union-attr]
        return [a - b for a, b in zip(chosen, rejected, strict=True)]
    found = ratios([example.completion for example in data.held_out])  # type: ignore[union-attr]
    if spec.recipe == "sft":
        return found
    signs = [1 if example.label else -1 for example in data.held_out]  # type: ignore[union-attr]
    return [sign * value for sign, value in zip(signs, found, strict=True)]


def main() -> None:
    """Run one arm and print its figures."""
    method, arm, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
    import torch

    torch.set_num_threads(THREADS)
    _, base = default_world()
    data = make_data(method, BATCH * steps)
    spec = job_spec(base, method)
    train = {"ours": train_ours, "stock": train_stock}[arm]
    with tempfile.TemporaryDirectory(prefix="thumbtune-bench-") as home:
        model, took_s = train(spec, data, Path(home))
    cuda = torch.cuda.is_available()
    peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else peak_memory_mib()
    margins = held_out_margins(spec, model, data)
    print(
        json.dumps(
            {
                "examples_per_s": len(data.train) / took_s,
                "peak_mib": peak,
                "margins": margins,
            }
        )
    )


if __name__ == "__main__":
    main()
