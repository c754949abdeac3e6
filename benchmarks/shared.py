"""What a chat and a training run take from each other on the same cores.

Four people chat, each with a pause to read and write between a reply and the next message, as
people do; beside them goes a real training job (the recipe for votes), with the cores shared out as
`thumbtune up` shares them. In each round the chat has the machine to itself (the job stopped), then
the job does (nobody writes), then both go on. One chat that never pauses is shown too: how far a
full load holds the run back.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from pathlib import Path

from benchmarks.chats import Exchange, exchanges
from benchmarks.common import (
    Timed,
    arguments,
    default_world,
    median,
    scratch,
    start_engine,
)
from benchmarks.load import timed
from benchmarks.results import Row, append, print_table
from bot.running import threads_beside_training
from core.basemodel import BaseModel
from core.generation import BASE, Engine, GenerationRequest, Message, Sampling
from core.jobs import ChatMessage, JobSpec, Progress, Stage, VoteExample, read_progress
from core.settings import Settings

PEOPLE = 4
PAUSE_S = (2.0, 6.0)
MAX_TOKENS = 64
CHARS = (200, 500)
"""The shortest and the longest context a question may have."""
ROUNDS, PART_S = 5, 12.0
QUICK_ROUNDS, QUICK_PART_S = 1, 10.0
SLOWDOWN_BOUND, SPEED_BOUND = 1.5, 0.5


def _contexts() -> list[Exchange]:
    """Draw contexts of like length: in the few replies of a part, chance would choose the wait."""
    drawn = exchanges(1500, seed=1)
    return [one for one in drawn if CHARS[0] <= sum(map(_chars, one.context)) <= CHARS[1]]


def _chars(message: Message) -> int:
    return len(message.content)


@dataclass
class Talk:
    """The people's questions, and the replies they got; none comes again while it is known."""

    engine: Engine
    number: Iterator[int] = field(default_factory=count)
    contexts: list[Exchange] = field(default_factory=_contexts)

    async def go_on(self, seconds: float, people: int, pause_s: tuple[float, float]) -> list[Timed]:
        """Let `people` chat for some seconds; replies begun are waited for."""
        done: list[Timed] = []
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds

        async def person(place: int) -> None:
            chance = random.Random(place)
            await asyncio.sleep(chance.uniform(0, pause_s[1] / 2))
            while loop.time() < end:
                done.append(await timed(self.engine, self._request()))
                await asyncio.sleep(chance.uniform(*pause_s))

        await asyncio.gather(*(person(place) for place in range(people)))
        return done

    def _request(self) -> GenerationRequest:
        number = next(self.number)
        sampling = Sampling(0.7, 0.95, max_tokens=MAX_TOKENS, seed=number)
        return GenerationRequest(self.contexts[number % len(self.contexts)].context, BASE, sampling)


@dataclass(frozen=True, slots=True)
class Job:
    """A training job that runs in a process of its own and can be stopped and let go on."""

    directory: Path
    process: int

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Hold it still for a while."""
        os.killpg(self.process, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self.process, signal.SIGCONT)

    def steps_per_s(self, since: int) -> float:
        """Return the speed over the steps reported after the first `since` of them."""
        steps = self.steps()[since:]
        took = _moment(steps[-1]) - _moment(steps[0]) if len(steps) > 1 else 0.0
        return (len(steps) - 1) / took if took else 0.0

    def steps(self) -> list[Progress]:
        """Return the progress of the steps done so far."""
        return [one for one in read_progress(self.directory) if one.step]


def _moment(progress: Progress) -> float:
    return datetime.fromisoformat(progress.at).timestamp()


async def measure(home: Path, rounds: int, part_s: float) -> dict[str, list[float]]:
    """Run the rounds; return each figure of each round."""
    from trainer.launchers.local import LocalLauncher

    settings, base = default_world()
    engine, launcher = await start_engine(settings, base), LocalLauncher()
    directory = _write_job(home / "job", settings, base)
    handle = await launcher.submit(
        directory,
        threads=settings.training_threads,
        nice=settings.training.nice,
        timeout_s=3600,
    )
    try:
        job = Job(directory, int(handle.id.removeprefix("local-")))
        while not job.steps():
            await asyncio.sleep(0.2)
        found: dict[str, list[float]] = defaultdict(list)
        talk = Talk(engine)
        for _ in range(rounds):
            await _round(talk, job, settings, part_s, found)
        return found
    finally:
        await launcher.cancel(handle)
        await engine.close()


async def _round(
    talk: Talk, job: Job, settings: Settings, part_s: float, found: dict[str, list[float]]
) -> None:
    pace = (PEOPLE, PAUSE_S)
    busy = (1, (0.0, 0.0))
    await talk.engine.set_threads(settings.serving_threads)
    with job.stopped():
        alone = await talk.go_on(part_s, *pace)
        alone_busy = await talk.go_on(part_s / 2, *busy)
    since = len(job.steps())
    await asyncio.sleep(part_s)
    idle = job.steps_per_s(since + 1)
    await talk.engine.set_threads(threads_beside_training(settings, talk.engine))
    since = len(job.steps())
    beside = await talk.go_on(2 * part_s, *pace)
    trained = job.steps_per_s(since)
    since = len(job.steps())
    beside_busy = await talk.go_on(2 * part_s, *busy)
    trained_busy = job.steps_per_s(since)
    for name, replies in (
        ("alone", alone),
        ("beside", beside),
        ("busy alone", alone_busy),
        ("busy beside", beside_busy),
    ):
        found[f"{name} tokens/s"].append(median(_speeds(replies)))
        found[f"{name} first token ms"].append(1e3 * median([one.arrivals_s[0] for one in replies]))
    for name, speed in (("idle", idle), ("beside", trained), ("busy", trained_busy)):
        found[f"steps/s {name}"].append(speed)


def _speeds(replies: list[Timed]) -> list[float]:
    """Return tokens a second of each reply of some length, from the first piece to the last."""
    long = [one for one in replies if len(one.arrivals_s) > 8]
    return [one.tokens / (one.arrivals_s[-1] - one.arrivals_s[0]) for one in long]


def _write_job(directory: Path, settings: Settings, base: BaseModel) -> Path:
    from trainer.snapshot import write_job

    examples = [
        VoteExample(
            feedback_ids=[f"f{index}"],
            person=f"p{index % 8}",
            at="2026-01-01T00:00:00Z",
            prompt=[ChatMessage(role=m.role, content=m.content) for m in one.context],
            completion=one.reply,
            label=index % 3 == 0,
        )
        for index, one in enumerate(exchanges(640, seed=2, most_turns=1))
    ]
    spec = JobSpec(
        run_id="run_benchmark",
        adapter="bench@v1",
        base_path=str(base.path.resolve()),
        base_model=base.name,
        base_sha256=base.sha256,
        recipe="sft",
        why="a benchmark",
        stages=[
            Stage(method="sft", loss="nll", learning_rate=1e-4, epochs=20.0, batch_size=2),
        ],
        threads=settings.training_threads,
    )
    write_job(directory, spec, examples[:600], examples[600:])
    return directory


def _ratio(found: dict[str, list[float]], one: str, other: str) -> float:
    pairs = zip(found[one], found[other], strict=True)
    return median([a / b for a, b in pairs])


def _report(options: argparse.Namespace, found: dict[str, list[float]]) -> None:
    medians = {name: median(values) for name, values in found.items()}
    tokens = _ratio(found, "alone tokens/s", "beside tokens/s")
    first = _ratio(found, "beside first token ms", "alone first token ms")
    speed = _ratio(found, "steps/s beside", "steps/s idle")
    rows = [
        Row("4 people: tokens/s of a reply, beside a run and alone (ratio: times worse)",
            medians["beside tokens/s"], medians["alone tokens/s"], tokens, at_most=SLOWDOWN_BOUND),
        Row("4 people: first token ms", medians["beside first token ms"],
            medians["alone first token ms"], first, at_most=SLOWDOWN_BOUND),
        Row("the run: steps/s beside the 4 people, and when nobody writes",
            medians["steps/s beside"], medians["steps/s idle"], speed, at_least=SPEED_BOUND),
        Row("a chat that never pauses: tokens/s (ratio: times worse)",
            medians["busy beside tokens/s"], medians["busy alone tokens/s"],
            _ratio(found, "busy alone tokens/s", "busy beside tokens/s")),
        Row("the run beside it, steps/s", medians["steps/s busy"], medians["steps/s idle"],
            _ratio(found, "steps/s busy", "steps/s idle")),
    ]  # fmt: skip
    print_table(rows)
    if options.record:
        append("Chat and training on the same two cores", rows)
    if options.json:
        ratios = {
            "chat_slowdown_during_training": max(tokens, first),
            "training_speed_during_chat": speed,
        }
        print(json.dumps({**medians, "ratios": ratios}))


def main() -> None:
    """Run and print."""
    options = arguments("What a chat and a training run take from each other.")
    rounds, part_s = (QUICK_ROUNDS, QUICK_PART_S) if options.quick else (ROUNDS, PART_S)
    with scratch() as home:
        found = asyncio.run(measure(home, rounds, part_s))
    _report(options, found)


if __name__ == "__main__":
    main()
