"""A cell of the benchmark: one community's votes, the product's own run on them, what came of it.

A cell is a directory: a job (docs/job-directory.md) with `ask.json` beside it, the unseen prompts;
the work adds `report.json` and `drawn.json`, the replies to them. What is there is never done
again, so an interrupted grid goes on where it stopped, and a directory can be worked on another
machine.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.files import publish_directory, write_atomic
from core.jobs import ADAPTER, REPORT, JobSpec, read_spec
from core.records import FeedbackRow
from core.settings import Settings
from trainer.plan import plan_training
from trainer.snapshot import write_job

ASK, DRAWN, BASE_DRAWN = "ask.json", "drawn.json", "base.json"
SAMPLED_TOKENS = 80


@dataclass(frozen=True, slots=True)
class Cell:
    """Which community, and with `variant` by which recipe it is learnt from; "" is the default."""

    taste: str
    arm: str
    seed: int
    variant: str = ""

    @property
    def name(self) -> str:
        """Return the name of its directory."""
        variant = f"@{self.variant}" if self.variant else ""
        return f"{self.taste}-{self.arm}-s{self.seed}{variant}"


@dataclass(frozen=True, slots=True)
class Written:
    """A reply to an unseen prompt."""

    prompt: str
    text: str
    complete: bool
    tokens: list[int]


def make_cell(
    directory: Path,
    rows: Sequence[FeedbackRow],
    unseen: Sequence[str],
    settings: Settings,
    *,
    base: tuple[str, str, str],
    seed: int,
    recipe: str = "auto",
    live: Path | None = None,
) -> None:
    """Write the job of these rows, as a run would, with the unseen prompts beside it.

    `base` is the name, the hash and the directory of the base model. Nothing is done where the
    directory is there.
    """
    if directory.exists():
        return
    training = settings.training
    plan = plan_training(rows, settings, recipe)
    spec = JobSpec(
        run_id=f"run_{directory.name}",
        adapter="community@v1",
        base_model=base[0],
        base_sha256=base[1],
        base_path=base[2],
        live_path=str(live) if live else None,
        live_name="community@v0" if live else None,
        recipe=plan.recipe.name,
        why=plan.recipe.why,
        stages=list(plan.recipe.stages),
        lora_rank=training.lora_rank,
        lora_alpha=training.lora_alpha,
        max_length=training.max_length,
        seed=seed,
        threads=1,
        sample_max_tokens=SAMPLED_TOKENS,
    )

    def fill(path: Path) -> None:
        write_job(path / "job", spec, plan.train, plan.held_out)
        for file in (path / "job").iterdir():
            file.rename(path / file.name)
        (path / "job").rmdir()
        (path / ASK).write_text(json.dumps(list(unseen)), encoding="utf-8")

    publish_directory(directory, fill)


def is_done(directory: Path) -> bool:
    """Say whether nothing is left to do."""
    return (directory / DRAWN).exists() and (directory / REPORT).exists()


def work_cell(directory: Path, *, base_path: str | None = None, evaluate: bool = True) -> None:
    """Train, evaluate and draw; idempotent. `base_path` is where the base lies on this machine."""
    from trainer.job import run_job

    if base_path is not None:
        spec = read_spec(directory).model_copy(update={"base_path": base_path})
        write_atomic(directory / "job.json", spec.model_dump_json())
    run_job(directory, evaluate=evaluate)
    if not (directory / DRAWN).exists():
        prompts = json.loads((directory / ASK).read_text(encoding="utf-8"))
        drawn = draw(read_spec(directory), directory / ADAPTER, prompts)
        write_atomic(directory / DRAWN, json.dumps([asdict(one) for one in drawn]))


def draw_base(directory: Path) -> None:
    """Answer a cell's unseen prompts with the base; kept as `base.json` beside the cells."""
    target = directory.parent / BASE_DRAWN
    if not target.exists():
        prompts = json.loads((directory / ASK).read_text(encoding="utf-8"))
        drawn = draw(read_spec(directory), None, prompts)
        write_atomic(target, json.dumps([asdict(one) for one in drawn]))


def draw(
    spec: JobSpec,
    adapter: Path | None,
    prompts: Sequence[str],
    *,
    seed: int = 77,
    temperature: float = 0.7,
    max_tokens: int = SAMPLED_TOKENS,
) -> list[Written]:
    """Answer prompts with an adapter, or the base; a prompt has the same luck in all cells."""
    from peft import get_peft_model

    from trainer.model import load_base, load_tokenizer, load_trained, lora_config
    from trainer.sampling import Drawing, draw_replies
    from trainer.scoring import Systems, Texts

    if adapter is None:
        model: Any = get_peft_model(load_base(spec), lora_config(spec)).eval()  # adds nothing yet
    else:
        model = load_trained(spec, adapter)
    systems, texts = Systems(model), Texts(load_tokenizer(spec), spec.max_length)
    batch = 128 if systems.device.type == "cuda" else 64
    drawing = Drawing(
        end_ids=frozenset({texts.end_id}),
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=0.95,
        seed=seed,
        batch=batch,
    )
    ids = [texts.prompt([{"role": "user", "content": prompt}]) for prompt in prompts]
    replies = draw_replies(systems, "candidate" if adapter else "base", ids, drawing)
    return [
        Written(prompt, texts.read(reply.token_ids), reply.finished, reply.token_ids)
        for prompt, reply in zip(prompts, replies, strict=True)
    ]


def read_drawn(directory: Path, name: str = DRAWN) -> list[Written]:
    """Return the replies of a finished cell, or those of the base beside the cells."""
    rows: list[dict[str, Any]] = json.loads((directory / name).read_text(encoding="utf-8"))
    return [Written(**row) for row in rows]
