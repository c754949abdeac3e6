"""The job's side of `progress.jsonl`: append a line, flush it, never tear another's.

Owns the one fraction of the whole job, which never falls within an attempt, and the estimate of the
time left.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from core.jobs import PROGRESS, Progress
from core.records import utc_now

EVERY_S = 1.0
"""Lines that differ in nothing but the fraction come no more often than this."""


class ProgressLog:
    """Writes the progress of one attempt at a job; a later attempt appends."""

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = directory / PROGRESS
        self._clock = clock
        self._started: tuple[float, float] | None = None
        self._fraction = 0.0
        self._last: tuple[str, str] | None = None
        self._last_at = 0.0
        if self._path.exists() and not self._path.read_bytes().endswith(b"\n"):
            self._append("\n")  # a crash tore the last line; it is skipped by readers

    def write(
        self,
        stage: str,
        *,
        fraction: float,
        step: int = 0,
        steps: int = 0,
        loss: float | None = None,
        margin: float | None = None,
        message: str = "",
    ) -> None:
        """Append one line; `fraction` of the whole job in [0, 1]. Steps are all written."""
        self._fraction = max(self._fraction, min(1.0, fraction))
        now = self._clock()
        if not step and self._last == (stage, message) and now - self._last_at < EVERY_S:
            return
        self._last, self._last_at = (stage, message), now
        line = Progress(
            at=utc_now(),
            stage=stage,
            step=step,
            steps=steps,
            fraction=round(self._fraction, 4),
            loss=loss,
            margin=margin,
            eta_s=self._seconds_left(now),
            message=message,
        )
        self._append(line.model_dump_json() + "\n")

    def _seconds_left(self, now: float) -> float | None:
        """Extrapolate from this attempt alone: an earlier one may have run on an idler machine."""
        if self._started is None:
            self._started = now, self._fraction
            return None
        since, first = self._started
        done = self._fraction - first
        return round((now - since) / done * (1 - self._fraction), 1) if done > 0 else None

    def _append(self, text: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text)
