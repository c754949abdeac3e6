"""Two rounds: the second votes are on what the first round's adapter says, and all of it is learnt
from.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.learning.cells import Cell, is_done, make_cell, work_cell
from benchmarks.learning.community import feedback_rows
from benchmarks.learning.grid import tasks_of, wanted_cells
from benchmarks.learning.rounds import (
    FIRST,
    LIVE,
    TWO_ROUNDS,
    first_of,
    plan_round,
    read_round,
    round_directory,
    second_votes,
    work_round,
)
from core.jobs import EVAL, TRAIN, read_examples, read_spec
from core.report import read_report
from tests.benchmarks.small import (
    PROMPTS,
    TASTE,
    UNSEEN,
    small_base,
    small_settings,
    small_world,
)

CELL = Cell(TASTE, TWO_ROUNDS, 0)
VOTES = 24


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A grid whose first round is done and whose second was interrupted while votes were cast."""
    home = tmp_path_factory.mktemp("grid")
    plan_round(home, CELL, small_world(), VOTES)
    directory = round_directory(home, CELL)
    held = read_round(directory)
    first = home / first_of(CELL).name
    make_cell(
        first,
        feedback_rows(held.said),
        UNSEEN,
        small_settings(),
        base=small_base(tiny_model),
        seed=0,
    )
    work_cell(first)
    second_votes(replace(held, votes=5), directory, first)
    return home


def test_two_rounds_bring_their_first_along() -> None:
    """The first round is a cell of its own, worked on once, and the second waits for it."""
    cells = wanted_cells([TASTE], [TWO_ROUNDS], [0], "")
    assert [cell.arm for cell in cells] == [FIRST, TWO_ROUNDS]
    first, second, *_ = tasks_of(cells, Path("grid"), instructed=False)
    assert second.needs == (first.makes,)


def test_the_second_round_goes_on_where_it_stopped(home: Path) -> None:
    """What was drawn stays as it was; the run learns from both rounds, the first adapter live."""
    directory = round_directory(home, CELL)
    drawn = {path: path.stat().st_mtime_ns for path in directory.glob("shown-*.json")}
    assert drawn
    work_round(directory, small_settings())
    assert {path: path.stat().st_mtime_ns for path in drawn} == drawn
    cell = home / CELL.name
    assert is_done(cell)
    assert read_spec(cell).live_path == str((home / first_of(CELL).name / "adapter").resolve())
    assert set(read_report(cell).systems) == {"base", "live", "candidate"}
    asked = {one.prompt[0].content for name in (TRAIN, EVAL) for one in read_examples(cell / name)}
    held = read_round(directory)
    first = {signal.reply.prompt for signal in held.said}
    assert first < asked <= first | set(held.prompts)
    before = (cell / "report.json").stat().st_mtime_ns
    work_round(directory, small_settings())
    assert (cell / "report.json").stat().st_mtime_ns == before


def test_the_second_votes_are_on_the_adapter_and_on_new_prompts(home: Path) -> None:
    """No prompt is asked twice, and every reply is the live adapter's and says so."""
    directory = round_directory(home, CELL)
    held = read_round(directory)
    votes = second_votes(held, directory, home / first_of(CELL).name)
    assert {vote.adapter for vote in votes} == {LIVE}
    asked = {vote.reply.prompt for vote in votes}
    assert asked <= set(PROMPTS)
    assert not asked & {signal.reply.prompt for signal in held.said}
    shown = json.loads((directory / "shown-00.json").read_text(encoding="utf-8"))
    assert votes[0].reply.text in {row["text"] for row in shown}
