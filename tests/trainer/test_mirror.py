"""The copy of another machine's progress: each line once, whatever happened before."""

from __future__ import annotations

from pathlib import Path

from core.jobs import PROGRESS, Progress, read_progress
from trainer.launchers.mirror import ProgressMirror


def line(step: int, fraction: float = 0.5) -> str:
    """Return a line as a job writes it."""
    at = f"2026-01-01T00:00:{step:02}.000000Z"
    row = Progress(at=at, stage="1-sft", step=step, steps=9, fraction=fraction)
    return row.model_dump_json() + "\n"


def test_lines_come_once_also_after_a_crash_in_the_middle(tmp_path: Path) -> None:
    """A new mirror takes everything from the beginning and adds only what is not here whole."""
    ProgressMirror(tmp_path).take(line(1) + line(2))
    with (tmp_path / PROGRESS).open("a", encoding="utf-8") as file:
        file.write(line(3)[:20])
    again = ProgressMirror(tmp_path)
    again.take(line(1) + line(2) + line(3))
    again.take(line(3) + line(4))
    assert [row.step for row in read_progress(tmp_path)] == [1, 2, 3, 4]


def test_torn_lines_are_left_out_and_notes_keep_the_fraction(tmp_path: Path) -> None:
    """What is said here stands between the lines from there."""
    mirror = ProgressMirror(tmp_path)
    mirror.take(line(1, fraction=0.25) + line(2)[:30] + "\n")
    mirror.note("waiting", "no connection")
    rows = read_progress(tmp_path)
    assert [(row.step, row.fraction, row.message) for row in rows] == [
        (1, 0.25, ""),
        (0, 0.25, "no connection"),
    ]


def test_a_directory_that_was_removed_is_not_made_again(tmp_path: Path) -> None:
    """Where words were forgotten nothing is written any more."""
    directory = tmp_path / "run_1"
    directory.mkdir()
    mirror = ProgressMirror(directory)
    directory.rmdir()
    mirror.take(line(1))
    mirror.note("waiting", "no connection")
    assert not directory.exists()
