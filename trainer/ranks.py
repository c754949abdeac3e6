"""A stage of training on several devices of this machine: a process for each, one batch among them.

The job stays one process and starts these for the stage alone; it alone writes the progress. Rank 0
saves checkpoints and what was trained. A rank that dies takes the others with it, and none outlives
the job. They meet through a file, so no port is taken.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from torch import distributed
from torch.multiprocessing.spawn import ProcessExitedException, start_processes

from core.files import publish_directory, write_atomic
from core.jobs import Example, JobSpec, Stage
from trainer.checkpoints import newest_whole_checkpoint
from trainer.faults import EXIT_FAILED, JobFault, diagnose, watch_parent
from trainer.fit import Fit
from trainer.model import choose_device, load_tokenizer, load_trained, save_adapter, whole_weights
from trainer.tokens import make_encoder
from trainer.train import Step, Trained, train_stage

TRAINED, METRICS, FAILURE = "trained", "metrics.json", "failure.json"
_POLL_S = 0.2
_GRACE_S = 10.0
"""A rank that has not ended this long after SIGTERM is killed."""


class RankFailed(JobFault):
    """A process of several failed, with what it said."""

    def __init__(self, code: int, sentence: str) -> None:
        self.exit_code = code
        super().__init__(sentence)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What every rank is told: as of `train_stage`."""

    spec: JobSpec
    stage: Stage
    examples: list[Example]
    fit: Fit
    before: Path | None
    scratch: Path
    resume: bool
    checkpoint_s: float


def train_on_ranks(
    spec: JobSpec,
    stage: Stage,
    examples: Sequence[Example],
    *,
    fit: Fit,
    before: Path | None,
    scratch: Path,
    resume: bool,
    checkpoint_s: float,
    on_step: Callable[[Step], None],
) -> Trained:
    """Train one stage on `spec.gpus` devices; as `train_stage`, which each of them runs.

    Raises RankFailed with what the first to fail said.
    """
    asked = _Asked(spec, stage, list(examples), fit, before, scratch, resume, checkpoint_s)
    scratch.mkdir(parents=True, exist_ok=True)
    newest_whole_checkpoint(scratch)  # broken ones go before several processes look
    (scratch / FAILURE).unlink(missing_ok=True)
    shutil.rmtree(scratch / TRAINED, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="meeting-") as meeting:
        _run(asked, Path(meeting) / "store", on_step)
    metrics = json.loads((scratch / TRAINED / METRICS).read_text(encoding="utf-8"))
    return Trained(load_trained(spec, scratch / TRAINED), metrics)


def _run(asked: _Asked, store: Path, on_step: Callable[[Step], None]) -> None:
    """Start the ranks and hand their steps on until all have ended."""
    steps, told = get_context("spawn").Pipe(duplex=False)
    count = asked.spec.gpus
    arguments = (count, asked, store, told, os.getpid())
    start: Any = start_processes
    context = start(_rank, arguments, nprocs=count, join=False, start_method="spawn")
    told.close()
    try:
        ended = False
        while not ended:
            ended = context.join(timeout=_POLL_S, grace_period=_GRACE_S)
            _hand_on(steps, on_step)
    except ProcessExitedException as gone:
        raise _failure(asked.scratch, gone, context.processes) from gone
    finally:
        _end(context.processes)
        steps.close()


def _hand_on(steps: Connection, on_step: Callable[[Step], None]) -> None:
    try:
        while steps.poll():
            on_step(steps.recv())
    except (EOFError, OSError):
        return  # rank 0 has ended, or died in the middle of a word


def _end(processes: Sequence[Any]) -> None:
    """Leave none of them running."""
    for process in processes:
        if process.is_alive():
            process.terminate()
    for process in processes:
        process.join(_GRACE_S)
        if process.is_alive():
            process.kill()
            process.join()


def _failure(scratch: Path, gone: ProcessExitedException, processes: Sequence[Any]) -> RankFailed:
    """Say what ended them: one that was killed says nothing, and what the others say of it is
    that somebody is missing.
    """
    said = scratch / FAILURE
    found = json.loads(said.read_text(encoding="utf-8")) if said.exists() else None
    killed = [-one.exitcode for one in processes if one.exitcode < 0]
    killed = [number for number in killed if number != signal.SIGTERM]  # those we stopped
    if found and (found["code"] != EXIT_FAILED or not killed):
        return RankFailed(**found)
    how = signal.Signals(killed[0]).name if killed else f"exit code {gone.exit_code}"
    return RankFailed(
        EXIT_FAILED,
        f"one of the {len(processes)} processes that train together ended by {how} without a word "
        "(SIGKILL often is the system, out of memory); the others were stopped. Running it again "
        "goes on from the last checkpoint",
    )


def _rank(
    index: int, count: int, asked: _Asked, store: Path, told: Connection, parent: int
) -> None:
    """Be one of them; a failure is written down once and ends the process with its exit code."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the job has ended; waiting for others is over
    watch_parent(parent)
    try:
        _join(index, count, asked.spec, store)
        _train(index, asked, told)
        distributed.destroy_process_group()
    except Exception as error:
        code, sentence = diagnose(error)
        written = asked.scratch / FAILURE
        if not written.exists():  # what follows the first failure says nothing
            write_atomic(written, json.dumps({"code": code, "sentence": sentence}))
        os._exit(code)  # the others wait within a collective; nothing here may wait for them


def _join(index: int, count: int, spec: JobSpec, store: Path) -> None:
    """Enter the group, as torchrun would have it for accelerate."""
    names = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ.update({name: str(value) for name, value in names.items()})
    cuda = choose_device(spec.device) == "cuda"
    if cuda:
        torch.cuda.set_device(index)
    elif spec.sharding == "fsdp":
        _shard_on_a_cpu()
    torch.set_num_threads(max(1, spec.threads // count))
    distributed.init_process_group(
        "nccl" if cuda else "gloo", init_method=f"file://{store}", rank=index, world_size=count
    )


def _shard_on_a_cpu() -> None:
    """Let accelerate share a base out among processes of a CPU, for trying what GPUs do.

    FSDP2 runs over gloo; accelerate (1.15) asks for it on accelerators only.
    """
    first: Any = PartialState.__init__

    def begin(self: Any, *given: Any, **named: Any) -> None:
        first(self, *given, **named)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    PartialState.__init__ = begin


def _train(index: int, asked: _Asked, told: Connection) -> None:
    encoder = make_encoder(load_tokenizer(asked.spec), asked.spec.max_length)
    trained = train_stage(
        asked.spec,
        asked.stage,
        asked.examples,
        encoder=encoder,
        before=asked.before,
        scratch=asked.scratch,
        resume=asked.resume,
        checkpoint_s=asked.checkpoint_s,
        on_step=told.send if index == 0 else lambda step: None,
        fit=asked.fit,
    )

    weights = whole_weights(trained.model)

    def fill(path: Path) -> None:
        save_adapter(trained.model, path, asked.spec.base_model, weights)
        (path / METRICS).write_text(json.dumps(trained.metrics), encoding="utf-8")

    if index == 0:
        publish_directory(asked.scratch / TRAINED, fill)
    distributed.barrier()
