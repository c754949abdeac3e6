"""What a chat feels of a training run on the same machine: tokens/s and time to the first token.

One chat at a time, first with the machine to itself, then while a real training job (the default
recipe on simulated votes) goes on beside it, with the cores shared out as `thumbtune up` shares
them.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from benchmarks.common import (
    QUESTIONS,
    Timed,
    arguments,
    default_world,
    make_engine,
    median,
    report,
    scratch,
    timed_reply,
)
from core.basemodel import BaseModel
from core.generation import BASE, Engine
from core.jobs import ChatMessage, JobSpec, Stage, VoteExample, read_progress
from core.settings import Settings

MAX_TOKENS = 64


async def measure(home: Path, rounds: int) -> dict[str, Any]:
    """Chat alone, then beside a run; return both and their ratios."""
    from trainer.launch import LocalLauncher

    settings, base = default_world()
    engine = make_engine(settings, base)
    await engine.start()
    try:
        await _chat(engine, 2)
        alone = await _chat(engine, rounds)
        directory = _write_job(home / "job", settings, base)
        launcher = LocalLauncher()
        await engine.set_threads(settings.serving_threads_while_training)
        handle = await launcher.submit(
            directory,
            threads=settings.training_threads,
            nice=settings.training.nice,
            timeout_s=3600,
        )
        await _until_training(directory)
        begun, step = time.perf_counter(), read_progress(directory)[-1].step
        beside = await _chat(engine, rounds)
        took, last = time.perf_counter() - begun, read_progress(directory)[-1]
        await launcher.cancel(handle)
    finally:
        await engine.close()
    figures = {**_figures("alone", alone), **_figures("training", beside)}
    figures["training_steps_meanwhile"] = last.step - step
    figures["seconds_a_step_meanwhile"] = took / max(1, last.step - step)
    figures["tokens_slowdown"] = figures["alone_tokens_per_s"] / figures["training_tokens_per_s"]
    figures["first_token_slowdown"] = (
        figures["training_first_token_ms"] / figures["alone_first_token_ms"]
    )
    return figures


async def _chat(engine: Engine, rounds: int) -> list[Timed]:
    return [
        await timed_reply(
            engine, QUESTIONS[index % len(QUESTIONS)], BASE, max_tokens=MAX_TOKENS, seed=index
        )
        for index in range(rounds)
    ]


def _figures(name: str, replies: list[Timed]) -> dict[str, Any]:
    return {
        f"{name}_tokens_per_s": median([one.tokens / one.arrivals_s[-1] for one in replies]),
        f"{name}_first_token_ms": 1e3 * median([one.arrivals_s[0] for one in replies]),
    }


def _write_job(directory: Path, settings: Settings, base: BaseModel) -> Path:
    from trainer.snapshot import write_job

    examples = [
        VoteExample(
            feedback_ids=[f"f{index}"],
            person=f"p{index % 8}",
            at=f"2026-01-01T00:{index // 60:02}:{index % 60:02}Z",
            prompt=[ChatMessage(role="user", content=f"{QUESTIONS[index % 8]} ({index})")],
            completion="Here is what I would do. " * (1 + index % 12),
            label=index % 3 == 0,
        )
        for index in range(400)
    ]
    spec = JobSpec(
        run_id="run_benchmark",
        adapter="bench@v1",
        base_path=str(base.path.resolve()),
        base_model=base.name,
        base_sha256=base.sha256,
        recipe="apo",
        why="a benchmark",
        stages=[Stage(method="kto", loss="apo_zero_unpaired", learning_rate=1e-4, epochs=1.0)],
        threads=settings.training_threads,
    )
    write_job(directory, spec, examples[:360], examples[360:])
    return directory


async def _until_training(directory: Path) -> None:
    while not any(progress.step >= 1 for progress in read_progress(directory)):
        await asyncio.sleep(0.2)


def main() -> None:
    """Run and print."""
    options = arguments("A chat's speed beside a training run.")
    with scratch() as home:
        report(options, asyncio.run(measure(home, 4 if options.quick else 12)))


if __name__ == "__main__":
    main()
