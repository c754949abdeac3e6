"""Plain questions, answered a few times as people get answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.learning.plain import (
    ANSWERED,
    BASE_ANSWERED,
    answer,
    answer_base,
    read_answered,
)
from trainer.keepset import load_keepset


def test_base_and_adapter_are_asked_every_question_a_few_times(cell: Path) -> None:
    """No two rounds have the same luck, and who was asked is not asked again."""
    assert read_answered(cell.parent, cell) == (None, None)
    answer_base(cell)
    answer(cell)
    said = json.loads((cell / ANSWERED).read_text(encoding="utf-8"))
    assert {len(replies) for replies in said} == {len(load_keepset())}
    assert len({tuple(replies) for replies in said}) == len(said) > 1
    base = json.loads((cell.parent / BASE_ANSWERED).read_text(encoding="utf-8"))
    assert base != said
    before = (cell / ANSWERED).stat().st_mtime_ns
    answer(cell)
    assert (cell / ANSWERED).stat().st_mtime_ns == before


def test_what_is_answered_well_is_a_share_of_all_questions_and_rounds(cell: Path) -> None:
    """One question of one round in two."""
    items = load_keepset()
    jupiter = next(place for place, item in enumerate(items) if item.passes("Jupiter it is"))
    said = [[""] * len(items), ["Jupiter it is" if n == jupiter else "" for n in range(len(items))]]
    (cell / ANSWERED).write_text(json.dumps(said), encoding="utf-8")
    base, own = read_answered(cell.parent, cell)
    assert base is None
    assert own == pytest.approx(1 / (2 * len(items)))
