"""This side's copy of the progress of a job that runs elsewhere.

Each line of the other machine's `progress.jsonl` is appended here once, however often the
connection is lost or the bot dies: a line holds its own time to the microsecond, so one that is
here already is known by itself. What is only true here (what is being sent, that the connection is
lost) is written between. Says nothing more once the directory is gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from core.jobs import PROGRESS, Progress
from trainer.progress import EVERY_S, ProgressLog


class ProgressMirror:
    """Appends to the `progress.jsonl` of one job directory; the only writer on this machine."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / PROGRESS
        self._log = ProgressLog(directory)
        text = self._path.read_text(encoding="utf-8", errors="replace") if self._there else ""
        self._known = set(text.splitlines())
        self._fraction = 0.0

    @property
    def _there(self) -> bool:
        return self._path.exists()

    def take(self, text: str) -> None:
        """Append what is new of some whole lines; lines torn over there are left out."""
        fresh = [line for line in text.splitlines() if line not in self._known and self._read(line)]
        self._known.update(fresh)
        if fresh and self._path.parent.is_dir():
            with self._path.open("a", encoding="utf-8") as file:
                file.write("".join(line + "\n" for line in fresh))

    def note(self, stage: str, message: str) -> None:
        """Append a line of this side's own, with the fraction that was reached."""
        if self._path.parent.is_dir():
            self._log.write(stage, fraction=self._fraction, message=message)

    def percents(self, stage: str, what: str) -> Callable[[int], None]:
        """Return what tells a share of some work, at most once a second until it is whole."""
        last_at, last = float("-inf"), -1

        def tell(percent: int) -> None:
            nonlocal last_at, last
            due = percent == 100 or time.monotonic() - last_at >= EVERY_S
            if percent != last and due:
                last_at, last = time.monotonic(), percent
                self.note(stage, f"{what}, {percent} %")

        return tell

    def _read(self, line: str) -> bool:
        try:
            self._fraction = Progress.model_validate_json(line).fraction
        except ValidationError:
            return False
        return True
