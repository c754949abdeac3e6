"""The training job as a directory: what goes in, what comes out. Format: docs/job-directory.md.

In: `job.json`, `train.jsonl`, `eval.jsonl`. Out: `progress.jsonl`, `adapter/`, `report.json`. The
job is a pure function of its input and never opens the database, so the same directory runs on any
machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.errors import InvalidInput

JOB = "job.json"
TRAIN = "train.jsonl"
EVAL = "eval.jsonl"
PROGRESS = "progress.jsonl"
REPORT = "report.json"
LOG = "job.log"
ADAPTER = "adapter"


class _Format(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ChatMessage(_Format):
    """One message in TRL's conversational format."""

    role: Literal["system", "user", "assistant"]
    content: str


class VoteExample(_Format):
    """A reply with a thumb: desirable (`label` true) or not. `weight` in (0, 1].

    `complete` false says that the text was cut (by the length limit, say) before the model ended
    it: then it is learnt without its end mark, or a disliked cut reply would teach never to end
    one.
    """

    type: Literal["vote"] = "vote"
    feedback_ids: list[str]
    person: str
    at: str
    prompt: list[ChatMessage]
    completion: str
    label: bool
    weight: float = 1.0
    complete: bool = True


class PairExample(_Format):
    """Two completions of one prompt, one of them chosen; `…_complete` as in VoteExample."""

    type: Literal["pair"] = "pair"
    feedback_ids: list[str]
    person: str
    at: str
    prompt: list[ChatMessage]
    chosen: str
    rejected: str
    weight: float = 1.0
    chosen_complete: bool = True
    rejected_complete: bool = True


class DemonstrationExample(_Format):
    """A completion worth imitating: a correction."""

    type: Literal["demonstration"] = "demonstration"
    feedback_ids: list[str]
    person: str
    at: str
    prompt: list[ChatMessage]
    completion: str
    weight: float = 1.0
    complete: bool = True


Example = Annotated[VoteExample | PairExample | DemonstrationExample, Field(discriminator="type")]


class _Line(BaseModel):
    example: Example


class Stage(_Format):
    """One trainer run in the job; stages follow one another on the same LoRA weights.

    `epochs` may be a fraction. `learning_rate` is the peak of a schedule with 10 % warm-up. `on`
    says what is learnt from: the examples themselves, or pairs of the bot's own replies, ranked by
    a reward model of the examples (DPO only). `stop_margin` ends a DPO stage early: where chosen
    replies have become that many nats likelier against rejected ones, what follows costs more than
    it teaches. With `keep_known` the adapter is made as strong after the stage as it can be with
    plain questions answered as before (trainer.strength). `keep_out` in (0, 1) is the share of what
    plain questions give a layer that the adapter is kept out of (trainer.keep_out), in a job that
    has draws.
    """

    method: Literal["sft", "kto", "dpo"]
    loss: Literal["nll", "kto", "apo_zero_unpaired", "sigmoid"]
    learning_rate: float
    epochs: float
    beta: float = 0.1
    batch_size: int = 4
    on: Literal["examples", "draws"] = "examples"
    stop_margin: float | None = None
    keep_known: bool = False
    keep_out: float | None = None


class JobSpec(_Format):
    """Everything a job needs beside its examples. Paths are absolute on the machine it runs on.

    `draws` to `anchors` say how much a stage on draws makes (trainer.effort); None leaves it to the
    device. `gpus` devices of the machine share each batch; with `sharding` "fsdp" each of them
    holds a part of the base, with "none" all of it.
    """

    format: Literal[1] = 1
    run_id: str
    adapter: str
    base_path: str
    base_model: str
    base_sha256: str
    live_path: str | None = None
    live_name: str | None = None
    recipe: str
    why: str
    stages: list[Stage]
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    max_length: int = 1024
    seed: int = 0
    threads: int = 1
    device: str = "auto"
    dtype: str = "auto"
    load_in_4bit: bool = False
    gpus: int = 1
    sharding: Literal["none", "fsdp"] = "none"
    report_to: str = "none"
    sample_prompts: int = 32
    sample_max_tokens: int = 96
    draws: int | None = None
    ranked_prompts: int | None = None
    ranked_pairs: int | None = None
    anchors: int | None = None
    created_at: str = ""


class Progress(_Format):
    """A line of progress: `fraction` of the whole job in [0, 1]; `eta_s` seconds left, None if
    unknown.
    """

    at: str
    stage: str
    step: int
    steps: int
    fraction: float
    loss: float | None = None
    margin: float | None = None
    eta_s: float | None = None
    message: str = ""


def write_examples(path: Path, examples: Iterable[Example]) -> None:
    """Write one JSON object a line."""
    with path.open("w", encoding="utf-8") as file:
        for example in examples:
            file.write(example.model_dump_json() + "\n")


def read_examples(path: Path) -> Iterator[Example]:
    """Read the examples back; raises InvalidInput with file and line number."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield _Line.model_validate({"example": _json(line)}).example
            except (ValidationError, ValueError) as error:
                raise InvalidInput(f"{path}, line {number}: {error}") from error


def elsewhere_file(directory: Path) -> Path:
    """Return the file beside a job directory that says where else the job lies, while it does."""
    return directory.with_name(f".{directory.name}.elsewhere.json")


def read_spec(directory: Path) -> JobSpec:
    """Read `job.json`; raises InvalidInput."""
    return _read_model(directory / JOB, JobSpec)


def read_progress(directory: Path) -> list[Progress]:
    """Read all complete progress lines so far (a half-written last line is left out)."""
    path = directory / PROGRESS
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    rows = []
    for line in lines:
        try:
            rows.append(Progress.model_validate_json(line))
        except ValidationError:
            continue  # a line torn by a crash; the next start of the job writes on after it
    return rows


M = TypeVar("M", bound=BaseModel)


def _read_model(path: Path, model: type[M]) -> M:
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InvalidInput(f"{path}: no such file; the job directory is incomplete") from None
    except ValidationError as error:
        raise InvalidInput(f"{path}: {error}") from error


def _json(line: str) -> Any:
    import json

    return json.loads(line)
