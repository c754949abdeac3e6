"""The arithmetic of scale: worked by hand, proportional, and what docs/scale.md shows."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.scale import PAGE, SERVERS, as_objects, figures
from benchmarks.scale_model import (
    Assumptions,
    assumption_fields,
    limits_of,
    load_of,
    plan_of,
    with_changes,
)


def test_the_page_shows_what_the_script_prints() -> None:
    """docs/scale.md between its markers is `python -m benchmarks.scale`."""
    part = PAGE.read_text(encoding="utf-8").split("<!-- figures: begin -->")[1]
    shown = part.split("<!-- figures: end -->")[0].strip()
    assert shown == "\n".join(figures(SERVERS, Assumptions()))


def test_a_day_is_worked_by_hand() -> None:
    """100 servers: 30 of them active, 240 people, 1,440 replies, 288 votes, 1.2 runs."""
    load = load_of(100, Assumptions())
    assert load.people_day == pytest.approx(240)
    assert load.replies_day == pytest.approx(1_440)
    assert load.replies_peak_s == pytest.approx(0.05)
    assert load.votes_day == pytest.approx(288)
    assert load.cpu_training_min_day == pytest.approx(1.2 * 4.7)
    assert load.database_gb_year == pytest.approx(1_440 * 365 * 2_033 / 1e9)


def test_shards_are_discords_recommendation() -> None:
    """One for every thousand servers, five seconds apart."""
    assert [load_of(count, Assumptions()).shards for count in (1, 1_000, 1_001)] == [1, 1, 2]
    assert load_of(3_000, Assumptions()).start_s == 10


def test_limits_grow_with_the_servers() -> None:
    """Twice the servers use twice as much of each, so where each is full is one number."""
    once, twice = (limits_of(load_of(count, Assumptions()), Assumptions()) for count in (500, 1000))
    for before, after in zip(once, twice, strict=True):
        assert after.used == pytest.approx(2 * before.used)
        assert before.full_at(500) == pytest.approx(after.full_at(1000))


def test_a_plan_keeps_its_reserve_and_never_goes_below_one() -> None:
    """A small bot is one group on one machine; a large one is planned at part of its capacity."""
    a = Assumptions()
    small, large = plan_of(load_of(1, a), a), plan_of(load_of(100_000, a), a)
    assert (small.groups, small.cpu_machines) == (1, 1)
    assert large.groups * a.process_replies_s * a.busy_share >= 50
    assert large.cpu_machines * a.cpu_tokens_s * a.busy_share >= 4_000


def test_every_assumption_names_its_unit_and_source() -> None:
    """None is a bare number, and the script counts with all of them."""
    for one in assumption_fields():
        assert one.metadata["unit"] and one.metadata["source"], one.name
        changed = with_changes({one.name: one.default * 3})
        assert as_objects((100_000,), changed) != as_objects((100_000,), Assumptions()), one.name


@pytest.mark.parametrize("change", ["peeple=3", "people=0", "people=many", "people"])
def test_a_wrong_assumption_is_a_usage_error(change: str) -> None:
    """An unknown name, nothing to divide by, no number."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scale", "--set", change],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "--set" in done.stderr


def test_programs_get_the_same_figures() -> None:
    """`--json` ends with one object; sizes and assumptions are as asked."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.scale",
            "--servers",
            "50",
            "--set",
            "people=16",
            "--json",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    (size,) = json.loads(done.stdout.splitlines()[-1])["sizes"]
    assert size["load"]["replies_day"] == pytest.approx(50 * 0.3 * 16 * 6)
