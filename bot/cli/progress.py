"""One progress bar for a whole training run, on a terminal or in a log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress as Bar, TaskProgressColumn, TextColumn, TimeElapsedColumn

from bot.learning import OnProgress
from core.jobs import Progress
from rich.console import Console


@contextmanager
def progress_bar(console: Console, title: str) -> Iterator[OnProgress]:
    """Show a bar while the block runs; yields what to call with each progress line."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=console, transient=False) as bar:
        task = bar.add_task(title, total=1.0, note="")

        def show(progress: Progress) -> None:
            bar.update(
                task, completed=progress.fraction, description=progress.stage, note=describe(progress)
            )

        yield show


def describe(progress: Progress) -> str:
    """Put a progress line into a few words."""
    parts = [progress.message] if progress.message else []
    if progress.steps:
        parts.append(f"step {progress.step}/{progress.steps}")
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.3f}")
    if progress.margin is not None:
        parts.append(f"margin {progress.margin:+.3f}")
    if progress.eta_s is not None:
        parts.append(f"{progress.eta_s:.0f} s left")
    return " · ".join(parts)
