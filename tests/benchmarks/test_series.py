"""Retrainings in a row: the taste changes, the gate decides what lives, nothing is done twice."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.learning.cells import work_cell
from benchmarks.learning.community import make_members
from benchmarks.learning.report import series_table
from benchmarks.learning.series import (
    Series,
    live_before,
    measure_series,
    plan_series,
    run_directory,
    work_series,
)
from core.jobs import EVAL, TRAIN, read_examples, read_spec
from core.sections import GateSettings
from tests.benchmarks.small import PROMPTS, TASTE, UNSEEN, small_base, small_settings

SERIES = Series(TASTE, "human", 2, 20, 0, ("tiny", "0" * 64, ""), PROMPTS, UNSEEN)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A finished series of two runs."""
    directory = tmp_path_factory.mktemp("series") / "one"
    plan_series(directory, replace(SERIES, base=small_base(tiny_model)))
    work_series(directory, small_settings())
    return directory


def test_people_go_over_one_by_one() -> None:
    """Nobody at first, everybody at last, and whoever went over stays."""
    series = replace(SERIES, runs=10)
    members = make_members(series.seed, 0.1)
    turned = [
        {member.id for member in members if series.taste_of(member, number).name == "human"}
        for number in range(1, 11)
    ]
    assert [len(turned[0]), len(turned[2]), len(turned[-1])] == [0, 0, len(members)]
    assert all(before <= after for before, after in pairwise(turned))
    assert 0 < len(turned[4]) < len(members)


def test_each_run_learns_from_all_votes_so_far(done: Path) -> None:
    """The second run has more of them, and those of the first among them."""
    prompts = [
        {
            example.prompt[0].content
            for name in (TRAIN, EVAL)
            for example in read_examples(run_directory(done, number) / name)
        }
        for number in (1, 2)
    ]
    assert prompts[0] < prompts[1]
    assert len(prompts[0]) <= SERIES.votes < len(prompts[1]) <= 2 * SERIES.votes


def test_what_the_gate_accepted_is_live_for_the_next_run(done: Path) -> None:
    """Under bounds that anything keeps the first run lives; under the product's own it does not."""
    first = run_directory(done, 1)
    assert live_before(done, 2, small_settings().gate) == first
    assert read_spec(run_directory(done, 2)).live_path == str((first / "adapter").resolve())
    assert live_before(done, 2, GateSettings()) is None


def test_an_interrupted_series_ends_as_one_that_was_not(done: Path, tmp_path: Path) -> None:
    """Without its second run's report and votes half drawn, the same is drawn and learnt again."""
    other = tmp_path / "other"
    shutil.copytree(done, other)
    before = (run_directory(other, 1) / "report.json").stat().st_mtime_ns
    shutil.rmtree(run_directory(other, 2))
    (other / "run-02.votes" / "votes.json").unlink()
    work_series(other, small_settings())
    assert (run_directory(other, 1) / "report.json").stat().st_mtime_ns == before
    for name in (TRAIN, EVAL, "drawn.json"):
        mine, theirs = (run_directory(where, 2) / name for where in (other, done))
        assert mine.read_text(encoding="utf-8") == theirs.read_text(encoding="utf-8")


def test_a_series_is_reported_run_by_run(done: Path) -> None:
    """The base first, then both runs with what was live before them."""
    found = measure_series(done, small_settings().gate)
    assert [(one.run, one.live) for one in found] == [(0, ""), (1, "base"), (2, "run-01")]
    assert [one.turned for one in found] == [0.0, 0.0, 1.0]
    assert found[2].like == found[2].new
    assert len(series_table(found)) == 2 + 3
    work_cell(run_directory(done, 2))
    assert measure_series(done, small_settings().gate) == found
