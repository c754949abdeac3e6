"""Many retrainings in a row, while the community changes its mind.

People go over from one taste to the other one by one; every run learns from all votes so far, and
the votes are on what the adapter says that is live then: the last one the gate accepted. A series
is a directory with `series.json`; every run in it is a cell of its own, with its votes beside it,
so an interrupted series goes on where it stopped.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks.learning.arms import NOISE
from benchmarks.learning.cells import (
    BASE_DRAWN,
    Written,
    draw_base,
    is_done,
    make_cell,
    read_drawn,
    work_cell,
)
from benchmarks.learning.community import (
    PEOPLE,
    Member,
    Signal,
    cast_votes,
    feedback_rows,
    make_members,
    read_signals,
)
from benchmarks.learning.measure import mean_interval
from benchmarks.learning.pool import BaseReply
from benchmarks.learning.showing import shown_replies
from benchmarks.learning.tastes import TASTES, Taste
from core.files import write_atomic
from core.jobs import ADAPTER, JobSpec
from core.report import read_report
from core.sections import GateSettings
from core.settings import Settings
from trainer.figures import repeated_share
from trainer.gate import judge

SERIES, VOTES = "series.json", "votes.json"
STEADY = 0.3
"""The share of the runs before anybody changes their mind, and after everybody has."""


@dataclass(frozen=True, slots=True)
class Series:
    """A community that goes over from the taste `old` to `new`, and what it asks.

    `base` is the name, the hash and the directory of the base model.
    """

    old: str
    new: str
    runs: int
    votes: int
    seed: int
    base: tuple[str, str, str]
    prompts: list[str]
    unseen: list[str]
    recipe: str = "auto"

    def turned(self, number: int) -> float:
        """Return the share of people who hold the new taste at a run, counted from 1."""
        through = (number - 1) / max(1, self.runs - 1)
        return min(1.0, max(0.0, (through - STEADY) / (1 - 2 * STEADY)))

    def taste_of(self, member: Member, number: int) -> Taste:
        """Return what a member likes at a run."""
        order = [one.id for one in make_members(self.seed, NOISE)]
        random.Random(f"turning-{self.seed}").shuffle(order)
        turned = order.index(member.id) < round(self.turned(number) * PEOPLE)
        return TASTES[self.new if turned else self.old]


@dataclass(frozen=True, slots=True)
class RunFigures:
    """One run of a series. `old` and `new` are the shares of replies to unseen prompts that the
    tastes like; `like` weighs them by who holds which then. `live` is what was live before.
    """

    run: int
    turned: float
    votes: int
    like: float
    old: float
    old_low: float
    old_high: float
    new: float
    new_low: float
    new_high: float
    keep: float
    repetition: float
    words: float
    kl: float
    perplexity_ratio: float
    live: str
    accepted: bool
    failed: str


def plan_series(directory: Path, series: Series) -> None:
    """Write what a series starts from; nothing is done where it is there."""
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / SERIES).exists():
        write_atomic(directory / SERIES, json.dumps(asdict(series)))


def read_series(directory: Path) -> Series:
    """Read what a series started from."""
    row: dict[str, Any] = json.loads((directory / SERIES).read_text(encoding="utf-8"))
    return Series(**{**row, "base": tuple(row["base"])})


def run_directory(directory: Path, number: int) -> Path:
    """Return the cell of a run, counted from 1."""
    return directory / f"run-{number:02d}"


def work_series(directory: Path, settings: Settings) -> None:
    """Do all runs that are not done, one after the other."""
    series = read_series(directory)
    for number in range(1, series.runs + 1):
        run = run_directory(directory, number)
        live = live_before(directory, number, settings.gate)
        if not run.exists():
            _vote(series, directory, number, live, settings)
            said = [s for n in range(1, number + 1) for s in _read_votes(directory, n)[0]]
            make_cell(
                run,
                feedback_rows(said),
                series.unseen,
                settings,
                base=series.base,
                seed=series.seed,
                recipe=series.recipe,
                live=(live / ADAPTER).resolve() if live else None,
            )
        draw_base(run)
        work_cell(run)


def live_before(directory: Path, number: int, gate: GateSettings) -> Path | None:
    """Return the last run before this one that the gate accepted; None while the base is live."""
    before = (run_directory(directory, earlier) for earlier in range(number - 1, 0, -1))
    return next((run for run in before if judge(read_report(run), gate).accepted), None)


def measure_series(directory: Path, gate: GateSettings) -> list[RunFigures]:
    """Return the figures of the runs that are done, the base's first as run 0, if it was drawn."""
    series = read_series(directory)
    if not (directory / BASE_DRAWN).exists():
        return []
    runs = [run_directory(directory, number) for number in range(1, series.runs + 1)]
    measured = [_base_figures(series, directory)]
    for number, run in enumerate(runs, start=1):
        if is_done(run):
            measured.append(_run_figures(series, directory, number, gate))
    return measured


def _vote(
    series: Series, directory: Path, number: int, live: Path | None, settings: Settings
) -> None:
    """Let people vote on what is live until there are enough votes; kept in `votes.json`."""
    beside = directory / f"run-{number:02d}.votes"
    if (beside / VOTES).exists():
        return
    asked_before = sum(_read_votes(directory, earlier)[1] for earlier in range(1, number))
    order = list(series.prompts)
    random.Random(f"asked-{series.seed}").shuffle(order)
    shown = _Counted(
        shown_replies(
            beside,
            _spec(series, settings),
            live / ADAPTER if live else None,
            islice(cycle(order), asked_before, None),
            draw_as=number,
        )
    )
    votes = cast_votes(
        lambda member: series.taste_of(member, number),
        make_members(series.seed, NOISE),
        shown,
        series.votes,
        f"{series.seed}-run-{number}",
    )
    name = f"community@{live.name}" if live else "base"
    said = [asdict(replace(vote, adapter=name)) for vote in votes]
    write_atomic(beside / VOTES, json.dumps({"said": said, "asked": shown.count}))


def _read_votes(directory: Path, number: int) -> tuple[list[Signal], int]:
    """Return what was said before a run since the one before it, and how many replies were
    shown."""
    path = directory / f"run-{number:02d}.votes" / VOTES
    row = json.loads(path.read_text(encoding="utf-8"))
    return read_signals(row["said"]), row["asked"]


class _Counted:
    """An iterator of replies that knows how many it has given."""

    def __init__(self, replies: Iterator[BaseReply]) -> None:
        self._replies = replies
        self.count = 0

    def __iter__(self) -> Iterator[BaseReply]:
        return self

    def __next__(self) -> BaseReply:
        reply = next(self._replies)
        self.count += 1
        return reply


def _spec(series: Series, settings: Settings) -> JobSpec:
    """Return what drawing replies needs to know of the base."""
    name, sha256, path = series.base
    return JobSpec(
        run_id="run_shown",
        adapter="community@v0",
        base_model=name,
        base_sha256=sha256,
        base_path=path,
        recipe="none",
        why="replies are shown",
        stages=[],
        lora_rank=settings.training.lora_rank,
        lora_alpha=settings.training.lora_alpha,
        max_length=settings.training.max_length,
    )


def _base_figures(series: Series, directory: Path) -> RunFigures:
    report = read_report(run_directory(directory, 1))
    return RunFigures(
        run=0,
        turned=0.0,
        votes=0,
        **_replies(series, 0.0, read_drawn(directory, BASE_DRAWN)),
        keep=report.systems["base"].keep_score,
        kl=0.0,
        perplexity_ratio=1.0,
        live="",
        accepted=True,
        failed="",
    )


def _run_figures(series: Series, directory: Path, number: int, gate: GateSettings) -> RunFigures:
    run = run_directory(directory, number)
    report, live = read_report(run), live_before(directory, number, gate)
    verdict, candidate = judge(report, gate), report.systems["candidate"]
    turned = series.turned(number)
    return RunFigures(
        run=number,
        turned=turned,
        votes=number * series.votes,
        **_replies(series, turned, read_drawn(run)),
        keep=candidate.keep_score,
        kl=candidate.kl_to_base,
        perplexity_ratio=candidate.perplexity / report.systems["base"].perplexity,
        live=live.name if live else "base",
        accepted=verdict.accepted,
        failed=", ".join(check.name for check in verdict.failed),
    )


def _replies(series: Series, turned: float, said: list[Written]) -> dict[str, float]:
    found: dict[str, float] = {
        "repetition": fmean(repeated_share(one.tokens) for one in said),
        "words": float(median(len(one.text.split()) for one in said)),
    }
    for name, taste in (("old", TASTES[series.old]), ("new", TASTES[series.new])):
        liked = [float(taste.likes(one.prompt, one.text, one.complete)) for one in said]
        low, high = mean_interval(liked)
        found |= {name: fmean(liked), f"{name}_low": low, f"{name}_high": high}
    return found | {"like": (1 - turned) * found["old"] + turned * found["new"]}
