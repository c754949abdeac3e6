"""`python -m trainer.job DIR`: run a training job from its directory to its report.

What is finished is never done again: a stage whose weights are published, the adapter, the report.
So the command may be given again after any crash. With `--resume` an unfinished stage goes on from
its last whole checkpoint, without it the stage starts over. Exit codes: see EXIT_… below and
docs/job-directory.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from core.errors import ThumbtuneError
from core.files import publish_directory, sweep_temporary, write_atomic
from core.jobs import ADAPTER, EVAL, REPORT, TRAIN, Example, JobSpec, read_examples, read_spec
from core.processors import available_cores
from core.report import Report
from trainer.dataset import count_examples
from trainer.faults import EXIT_FAILED, EXIT_STOPPED, diagnose, watch_parent
from trainer.progress import ProgressLog

if TYPE_CHECKING:
    from trainer.lesson import Lesson

WORK = "work"
"""Where stages and checkpoints lie until the report is written."""
CHECKPOINT_S = 60.0
POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""What the libraries that compute read their number of threads from, when they are loaded."""
_TRAINED = 0.75
"""The fraction of the job at which training ends and evaluation begins."""
_RANKED = 0.3
"""The same, at which training begins where replies are ranked first."""
_STARTED = 0.02


class Stopped(BaseException):
    """Raised in the main thread by SIGTERM; not an Exception, so that nothing swallows it."""


@dataclass(frozen=True, slots=True)
class Here:
    """What differs on the machine that a job runs on from the one that wrote its directory."""

    base: Path | None = None
    live: Path | None = None
    threads: int | None = None
    device: str | None = None

    def applied(self, spec: JobSpec) -> JobSpec:
        """Return the spec as it holds here; `threads` 0 is every core."""
        changes: dict[str, object] = {}
        if self.base is not None:
            changes["base_path"] = str(self.base.resolve())
        if self.live is not None:
            changes["live_path"] = str(self.live.resolve())
        if self.threads is not None:
            changes["threads"] = self.threads or available_cores()
        if self.device is not None:
            changes["device"] = self.device
        return spec.model_copy(update=changes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job and return the exit code; one plain sentence on stderr says what failed."""
    options = _parse(arguments)
    _stand_back(options.nice)
    directory: Path = options.directory
    previous = signal.signal(signal.SIGTERM, _stop)
    if options.parent:
        watch_parent(options.parent)
    log: ProgressLog | None = None
    try:
        log = ProgressLog(directory) if directory.is_dir() else None
        run_job(
            directory,
            here=Here(options.base, options.live, options.threads, options.device),
            log=log,
            resume=options.resume,
            evaluate=not options.no_evaluation,
            checkpoint_s=options.checkpoint_seconds,
        )
    except (Stopped, KeyboardInterrupt):
        return _end(
            log, EXIT_STOPPED, "stopped before the end; --resume goes on from the last checkpoint"
        )
    except Exception as error:
        code, sentence = diagnose(error)
        if code == EXIT_FAILED and not isinstance(error, ThumbtuneError):
            traceback.print_exc()
        return _end(log, code, f"failed: {sentence}")
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def _stand_back(nice: int) -> None:
    """Lower this process's priority, and its session's: where Linux groups processes by session, a
    process's own priority counts within its session only.
    """
    os.nice(nice)
    if nice and os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):  # no such file: another system, or no groups
            Path("/proc/self/autogroup").write_text(str(nice), encoding="ascii")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.job", description="Run a training job."
    )
    parser.add_argument("directory", type=Path, help="a job directory (docs/job-directory.md)")
    parser.add_argument(
        "--resume", action="store_true", help="go on from the last whole checkpoint"
    )
    parser.add_argument("--no-evaluation", action="store_true", help="report on training only")
    parser.add_argument("--parent", type=int, default=0, help="stop when this process is gone")
    parser.add_argument("--nice", type=int, default=0, help="how far to stand back, 0 to 19")
    parser.add_argument("--base", type=Path, help="where the base model lies on this machine")
    parser.add_argument("--live", type=Path, help="where the live adapter lies on this machine")
    parser.add_argument("--threads", type=int, help="CPU threads on this machine; 0 is every core")
    parser.add_argument("--device", help="what computes on this machine: auto, cpu, cuda or mps")
    parser.add_argument("--checkpoint-seconds", type=float, default=CHECKPOINT_S)
    return parser.parse_args(arguments)


def run_job(
    directory: Path,
    *,
    here: Here | None = None,
    log: ProgressLog | None = None,
    resume: bool = True,
    evaluate: bool = True,
    checkpoint_s: float = CHECKPOINT_S,
) -> Report | None:
    """Do what is not done yet of the job: stages, adapter, evaluation, report. None if it was
    finished."""
    spec = (here or Here()).applied(read_spec(directory))
    if (directory / REPORT).exists():
        return None
    train, held_out = list(read_examples(directory / TRAIN)), list(read_examples(directory / EVAL))
    log = log or ProgressLog(directory)
    log.write("start", fraction=0.0, message="loading libraries and the base model")
    sweep_temporary(directory)
    sweep_temporary(directory / WORK)
    times: dict[str, float] = {}
    _set_threads(spec)
    _foresee(directory, spec, train, log)
    with _timed(times, "rank"):
        lesson = _learn(directory, spec, train, held_out, log)
    with _timed(times, "train"):
        metrics = _train(
            directory, spec, train, lesson, log, resume=resume, checkpoint_s=checkpoint_s
        )
    parts: dict[str, Any] = {"reference": "base", "preference": None, "systems": {}, "samples": []}
    if evaluate:
        with _timed(times, "evaluate"):
            parts = _evaluate(directory, spec, held_out, log, lesson)
    gains = parts.pop("gains", {})
    found = lesson.figures.model_copy(update=gains) if lesson else None
    counts = {"train_counts": count_examples(train), "eval_counts": count_examples(held_out)}
    report = _report(spec, reward=found, times_s=times, train_metrics=metrics, **counts, **parts)
    write_atomic(directory / REPORT, report.model_dump_json(indent=2) + "\n")
    shutil.rmtree(directory / WORK, ignore_errors=True)
    log.write("done", fraction=1.0, message="done")
    return report


def _report(spec: JobSpec, **found: Any) -> Report:
    named = {"run_id": spec.run_id, "adapter": spec.adapter}
    return Report(**named, recipe=spec.recipe, why=spec.why, **found)


def _foresee(directory: Path, spec: JobSpec, examples: list[Example], log: ProgressLog) -> None:
    """Say what memory each stage will take; raises NotEnoughMemory before anything is loaded."""
    if (directory / ADAPTER).exists():
        return
    from trainer.stage import foresee

    for line in foresee(spec, examples):
        log.write("start", fraction=0.0, message=line)


def _learn(
    directory: Path,
    spec: JobSpec,
    examples: list[Example],
    held_out: list[Example],
    log: ProgressLog,
) -> Lesson | None:
    """Rank the base's own replies by what people said, where a stage learns from that."""
    if all(stage.on == "examples" for stage in spec.stages):
        return None
    from trainer.best_of_n import learn

    def on_progress(fraction: float, message: str) -> None:
        log.write("rank", fraction=_STARTED + (_RANKED - _STARTED) * fraction, message=message)

    return learn(spec, examples, held_out, directory / WORK, on_progress)


def _train(
    directory: Path,
    spec: JobSpec,
    examples: list[Example],
    lesson: Lesson | None,
    log: ProgressLog,
    *,
    resume: bool,
    checkpoint_s: float,
) -> dict[str, Any]:
    """Train what is missing of the stages, publish `adapter/`; return the stages' metrics."""
    from trainer.effort import effort_of
    from trainer.stage import METRICS, train_into

    on: dict[str, Sequence[Example]] = {"examples": examples}
    named: dict[str, Any] = {}
    if lesson is not None:
        on = {"examples": lesson.imitated(examples), "draws": lesson.taught}
        heard = lesson.heard(examples, effort_of(spec).heard, spec.seed)
        named = {"plain": lesson.anchors, "heard": heard}
    finished = [directory / WORK / _stage_name(spec, number) for number in range(len(spec.stages))]
    if not (directory / ADAPTER).exists():
        for number, target in enumerate(finished):
            if not target.exists():
                train_into(
                    target,
                    spec,
                    spec.stages[number],
                    on[spec.stages[number].on],
                    before=finished[number - 1] if number else None,
                    resume=resume,
                    checkpoint_s=checkpoint_s,
                    tell=_teller(log, spec, number, target.name),
                    **named,
                )
        _publish(directory / ADAPTER, spec, finished[-1])
    return {
        target.name: json.loads((target / METRICS).read_text(encoding="utf-8"))
        for target in finished
        if (target / METRICS).exists()
    }


def _teller(log: ProgressLog, spec: JobSpec, number: int, name: str) -> Callable[..., None]:
    """Return what writes a stage's progress: a fraction of the stage, and what else a line has."""

    def tell(within: float, **line: Any) -> None:
        log.write(name, fraction=_fraction(spec, number, within), **line)

    return tell


def _stage_name(spec: JobSpec, number: int) -> str:
    stage = spec.stages[number]
    loss = "" if stage.method in ("sft", "dpo") or stage.loss == "kto" else f"-{stage.loss}"
    return f"{number + 1}-{stage.method}{loss}"


def _fraction(spec: JobSpec, number: int, within: float) -> float:
    ranked = any(stage.on == "draws" for stage in spec.stages)
    start = _RANKED if ranked else _STARTED
    return start + (_TRAINED - start) * (number + within) / len(spec.stages)


def _publish(target: Path, spec: JobSpec, source: Path) -> None:
    from trainer.model import round_adapter

    publish_directory(target, lambda path: round_adapter(spec, source, path))


def _evaluate(
    directory: Path,
    spec: JobSpec,
    held_out: list[Example],
    log: ProgressLog,
    lesson: Lesson | None,
) -> dict[str, Any]:
    """Measure the published adapter, loaded anew: what is judged is what will be served."""
    from trainer.evaluate import evaluate_job
    from trainer.model import load_tokenizer, load_trained

    def on_progress(fraction: float, message: str) -> None:
        log.write("evaluate", fraction=_TRAINED + (1 - _TRAINED) * fraction, message=message)

    on_progress(0.0, "loading the adapter")
    model = load_trained(spec, directory / ADAPTER)
    parts: dict[str, Any] = evaluate_job(
        spec,
        model,
        load_tokenizer(spec),
        held_out,
        lesson=lesson,
        on_progress=on_progress,
    )
    return parts


@contextlib.contextmanager
def _timed(times: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    times[name] = round(time.monotonic() - began, 3)


def _set_threads(spec: JobSpec) -> None:
    """Hold the thread budget and the job's GPUs, before anything is computed."""
    if spec.device.startswith("cuda:"):
        os.environ["CUDA_VISIBLE_DEVICES"] = spec.device.removeprefix("cuda:")
    else:
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = list(map(str, range(spec.gpus))) if given is None else given.split(",")
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names[: spec.gpus])
    for pool in POOLS:  # numpy takes every core otherwise, and several jobs stand still
        os.environ.setdefault(pool, str(max(1, spec.threads)))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if Path(spec.base_path).exists():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    torch.set_num_threads(max(1, spec.threads))


def _stop(signum: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough; let the clean-up finish
    raise Stopped


def _end(log: ProgressLog | None, code: int, sentence: str) -> int:
    with contextlib.suppress(OSError):
        if log is not None:
            log.write("end", fraction=0.0, message=sentence)
    print(sentence, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
