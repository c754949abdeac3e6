"""The queue: what is done stays done, what cannot be done is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.learning.queue import LOG, Task, work_off


def test_what_is_made_is_not_made_again(tmp_path: Path) -> None:
    """A task whose file is there starts no process."""
    (tmp_path / "made").touch()
    assert work_off([Task("nothing=at all", tmp_path / "made")], tmp_path, 2) == 0
    assert not (tmp_path / LOG).exists()


def test_a_task_whose_needs_nobody_makes_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where another task was to make them and failed; the log says why."""
    first = Task(str(tmp_path / "cell"), tmp_path / "cell" / "drawn.json")
    second = Task("follow=cell", tmp_path / "followed.json", (first.makes,))
    assert work_off([second, first], tmp_path, 2) == 2
    assert "what it needs was not made" in capsys.readouterr().err
    assert "job.json" in (tmp_path / LOG).read_text(encoding="utf-8")
