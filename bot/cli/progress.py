"""Progress on a terminal as bars; in a log as one line for each tenth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from bot.driver import OnProgress
from core.jobs import Progress

Tell = Callable[[str, float, str], None]
"""Called with a step's name, its share done in [0, 1], and a few words."""


@contextmanager
def step_bars(console: Console) -> Iterator[Tell]:
    """Show each step told of while the block runs."""
    if not console.is_terminal:
        yield _tell_in_lines(console)
        return
    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Bars(*columns, console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def tell(step: str, fraction: float, note: str) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=1.0, note="")
            bars.update(tasks[step], completed=fraction, note=note)

        yield tell


@contextmanager
def run_bar(console: Console) -> Iterator[OnProgress]:
    """Show one bar for a whole training run; yields what to call with each progress line."""
    with step_bars(console) as tell:
        yield lambda progress: tell("retrain", progress.fraction, describe(progress))


def describe(progress: Progress) -> str:
    """Put a progress line into a few words."""
    parts = [progress.stage]
    if progress.message:
        parts.append(progress.message)
    if progress.steps:
        parts.append(f"step {progress.step}/{progress.steps}")
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.3f}")
    if progress.margin is not None:
        parts.append(f"margin {progress.margin:+.3f}")
    if progress.eta_s is not None:
        parts.append(f"{progress.eta_s:.0f} s left")
    return " · ".join(parts)


def _tell_in_lines(console: Console) -> Tell:
    tenths: dict[str, int] = {}

    def tell(step: str, fraction: float, note: str) -> None:
        tenth = int(10 * fraction)
        if tenth > tenths.get(step, -1):
            tenths[step] = tenth
            console.print(f"{step} {fraction:.0%} {note}".rstrip(), markup=False, soft_wrap=True)

    return tell
