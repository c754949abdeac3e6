"""Membership after forgetting, on a real database and real adapters of the tiny model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.learning.arms import World, votes
from benchmarks.learning.person import (
    TOLD,
    Check,
    corrections,
    difference,
    measure_check,
    plan_check,
    work_check,
)
from benchmarks.learning.report import membership_table
from benchmarks.learning.tastes import TASTES
from core.jobs import EVAL, TRAIN, read_examples, read_spec
from storage.database import Database
from tests.benchmarks.small import TASTE, small_base, small_settings, small_world


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A finished check: 24 votes by a community, 10 corrections by one person."""
    directory = tmp_path_factory.mktemp("check") / "one"
    world = small_world()
    shown = list(world.shown(0, draws=(0,)))
    rest = World([reply.prompt for reply in shown[10:]], world.pool)
    said = votes(24, 0.1)(TASTES[TASTE], rest, 0)
    check = Check(
        said,
        corrections(shown[:10], 0),
        runs=2,
        seed=0,
        base=small_base(tiny_model),
        recipe="sft",  # learns words by heart, and nothing else by luck
    )
    plan_check(directory, check)
    work_check(directory, small_settings())
    return directory


def texts(job: Path) -> set[str]:
    """Return all that a job's examples say, but for the identifiers that rows are given by
    chance."""
    return {
        example.model_dump_json(exclude={"feedback_ids"})
        for name in (TRAIN, EVAL)
        for example in read_examples(job / name)
    }


def test_the_person_is_known_and_then_is_not(done: Path) -> None:
    """The adapter that learnt with them finds their words likelier; the next one does not."""
    found = measure_check(done)
    assert found.known.low > 0
    assert found.left.low <= 0 <= found.left.high
    assert abs(found.left.value) < found.known.value / 4
    assert found.forgotten
    assert len(membership_table(found)) == 2 + 6


def test_forgetting_took_the_person_from_database_and_data(done: Path) -> None:
    """The real service ran: no row, no word, and what is left is the others' votes."""
    with Database(done / "with.db") as db:
        assert all(person.platform_id != TOLD for person in db.people.list())
        assert len(db.feedback.rows("community")) == 24
    assert any("Ask " in one for one in texts(done / "with-0"))
    assert not any("Ask " in one for one in texts(done / "after-0"))
    assert measure_check(done).words_left == 0


def test_of_a_pair_only_the_person_differs(done: Path) -> None:
    """What the two learn from, and what chance decides for them, is the same but for the person,
    who is in neither; another pair has another split."""
    after, never = done / "after-1", done / "never-1"
    assert texts(after) == texts(never)
    assert read_spec(after).seed == read_spec(never).seed != read_spec(done / "after-0").seed
    found = measure_check(done)
    assert (found.left.value, found.left.low, found.left.high) == (0.0, 0.0, 0.0)


def test_a_check_that_is_done_is_not_done_again(done: Path) -> None:
    """Nothing is written a second time, and the person stays forgotten."""
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*.json")}
    work_check(done, small_settings())
    assert {path: path.stat().st_mtime_ns for path in done.rglob("*.json")} == before


def test_an_interval_knows_how_far_runs_differ() -> None:
    """Two runs a nat apart on the same corrections: the interval spans that nat."""
    apart = difference(np.array([[0.0] * 20, [1.0] * 20]), np.array([[0.5] * 20]))
    assert (apart.value, apart.low, apart.high) == (0.0, -0.5, 0.5)
    alike = difference(np.array([[2.0] * 20]), np.array([[0.5] * 20]))
    assert (alike.value, alike.low, alike.high) == (1.5, 1.5, 1.5)


def test_a_check_without_power_proves_nothing(done: Path) -> None:
    """Where even the adapter that learnt with them does not stand out, nothing is proven."""
    found = measure_check(done)
    flat = found.known.model_copy(update={"low": -0.1})
    assert not replace(found, known=flat).forgotten
    assert not replace(found, words_left=1).forgotten
    assert not replace(found, left=found.known).forgotten
