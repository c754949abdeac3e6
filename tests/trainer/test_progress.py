"""The job's progress: every step, and no more than a line a second of what only goes on."""

from __future__ import annotations

from pathlib import Path

from core.jobs import read_progress
from trainer.progress import ProgressLog


def test_what_only_goes_on_is_told_once_a_second(tmp_path: Path) -> None:
    """A new message, a new step and the next second are told; the fraction never falls."""
    seconds = iter([0.0, 0.2, 0.4, 0.5, 1.7, 1.8, 1.9])
    log = ProgressLog(tmp_path, clock=lambda: next(seconds))
    log.write("rank", fraction=0.1, message="drawing")
    log.write("rank", fraction=0.2, message="drawing")
    log.write("rank", fraction=0.3, message="reading")
    log.write("rank", fraction=0.2, message="reading")
    log.write("rank", fraction=0.4, message="reading")
    log.write("1-dpo", fraction=0.5, step=1, steps=2)
    log.write("1-dpo", fraction=0.6, step=2, steps=2)
    told = [(line.message, line.step, line.fraction) for line in read_progress(tmp_path)]
    assert told == [
        ("drawing", 0, 0.1), ("reading", 0, 0.3), ("reading", 0, 0.4), ("", 1, 0.5), ("", 2, 0.6),
    ]  # fmt: skip
