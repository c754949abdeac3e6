"""The report of synthetic figures: what is written between the markers, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest

from benchmarks.learning.cells import Cell
from benchmarks.learning.grid import (
    FIGURES,
    Found,
    keep_figures,
    read_basis,
    read_figures,
    write_figures,
)
from benchmarks.learning.instructions import Basis, Choice
from benchmarks.learning.measure import Figures, by_arm
from benchmarks.learning.page import PAGE, write_part
from benchmarks.learning.person import Membership
from benchmarks.learning.report import (
    costs_table,
    gate_sentences,
    gate_table,
    instructed_sentence,
    likes_table,
    membership_table,
    write_report,
    write_series,
)
from benchmarks.learning.series import RunFigures
from benchmarks.learning.tastes import TASTES
from core.report import Interval

ONE = Figures(
    like=0.5, like_low=0.4, like_high=0.6, base_like=0.2, base_like_low=0.1, base_like_high=0.3,
    words=40, base_words=60, repetition=0.02, base_repetition=0.01, distinct_2=0.8, empty=0.0,
    planted=0.0, keep=0.95, base_keep=1.0, keep_fall=0.05, answered=0.78, base_answered=0.81,
    ifeval=0.8, base_ifeval=0.9, ifeval_n=24, perplexity_ratio=1.01, kl=0.1, held_out_accuracy=0.8,
    held_out_p=0.0, reward_accuracy=0.0, reward_p=1.0, accepted=True, failed="", seconds=100.0,
)  # fmt: skip
REFUSED = replace(ONE, like=0.2, accepted=False, failed="luck, accuracy")


def found() -> Found:
    """Six tastes, two seeds: an honest arm of two sizes, a refused one, and shuffled votes."""
    arms = {"votes-50": REFUSED, "votes-240": ONE, "rounds-240": ONE, "shuffled-240": REFUSED}
    return {
        Cell(taste, arm, seed): replace(one, like=one.like + 0.1 * seed)
        for arm, one in arms.items()
        for taste in TASTES
        for seed in (0, 1)
    }


def run(number: int, **more: Any) -> RunFigures:
    """A run of a series."""
    figures: dict[str, Any] = {
        **dict.fromkeys(("old", "old_low", "old_high", "new", "new_low", "new_high"), 0.5),
        **{"turned": 0.5, "like": 0.5, "keep": 0.9, "repetition": 0.0, "words": 40.0, "kl": 0.1},
        **{"perplexity_ratio": 1.0, "live": "base", "accepted": True, "failed": ""},
    }
    return RunFigures(run=number, votes=80 * number, **{**figures, **more})


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A copy of the page as it is in the repository."""
    copy = tmp_path / "learning.md"
    copy.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    return copy


def test_only_what_is_between_the_markers_changes(page: Path) -> None:
    """The text around a part stays, and a report of the same figures is the same bytes."""
    before = page.read_text(encoding="utf-8")
    write_report(found(), page=page)
    after = page.read_text(encoding="utf-8")
    for text in (before, after):
        assert text.count("<!-- figures: begin -->") == text.count("<!-- figures: end -->") == 1
    outside = [text.split("<!-- figures: ") for text in (before, after)]
    assert [outside[0][0], outside[0][2]] == [outside[1][0], outside[1][2]]
    pictures = {path: path.read_bytes() for path in page.parent.glob("*.svg")}
    write_report(found(), page=page)
    assert page.read_text(encoding="utf-8") == after
    assert {path: path.read_bytes() for path in page.parent.glob("*.svg")} == pictures


def test_every_picture_that_is_shown_is_drawn(page: Path) -> None:
    """Each is a small SVG with its words as text, and the page names no other."""
    write_report(found(), page=page)
    write_series([run(0), run(1), run(2)], "human", "echo", page=page)
    text = page.read_text(encoding="utf-8")
    drawn = sorted(path.name for path in page.parent.glob("*.svg"))
    assert len(drawn) == 5
    for name in drawn:
        svg = (page.parent / name).read_text(encoding="utf-8")
        assert f"({name})" in text
        assert Xml.fromstring(svg).tag.endswith("svg")  # noqa: S314 # our own file
        assert "<text" in svg
        assert len(svg) < 60_000


def test_a_page_without_the_part_is_refused(tmp_path: Path) -> None:
    """Nothing is written where there is no place for it."""
    page = tmp_path / "page.md"
    page.write_text("# Nothing\n", encoding="utf-8")
    with pytest.raises(ValueError, match="has no part <!-- drift: begin -->"):
        write_part("drift", ["text"], {"drift.svg": "<svg/>"}, page=page)
    assert page.read_text(encoding="utf-8") == "# Nothing\n"
    assert not (tmp_path / "drift.svg").exists()


def test_no_finished_cells_is_a_plain_sentence(page: Path) -> None:
    """An empty report would look like a result."""
    with pytest.raises(SystemExit, match="no finished cells"):
        write_report({}, page=page)


def test_each_taste_has_its_own_figure_beside_the_base() -> None:
    """Means over the seeds by taste; the interval is over all cells of the arm."""
    (row,) = [line for line in likes_table(by_arm(found())) if "votes-240" in line]
    assert row.count("0.20 → 0.55") == len(TASTES) + 1
    low, high = row.rsplit("|", 2)[1].split(" to ")
    assert 0.5 <= float(low) < 0.55 < float(high) <= 0.6


def test_the_gate_is_judged_by_kind() -> None:
    """Of 36 honest cells 24 are accepted, of 12 shuffled ones none; the reasons are counted."""
    honest, shuffled = gate_sentences(found())
    assert "24 of 36 (0.50 to 0.80) accepted" in honest
    assert "12 of 12 (0.76 to 1.00) refused" in shuffled
    (row,) = [line for line in gate_table(by_arm(found())) if "shuffled-240" in line]
    assert "luck 12, accuracy 12" in row


def test_what_was_not_asked_is_not_shown_as_nothing() -> None:
    """Without IFEval its column is a dash, and the report says so; of figures that were measured
    elsewhere nothing is said of what was asked."""
    unasked = {cell: replace(one, ifeval=None) for cell, one in found().items()}
    assert "0.90 → 0.80" in costs_table(by_arm(found()))[2]
    assert "0.90" not in costs_table(by_arm(unasked))[2]
    basis = Choice([], 63, 0.9, 0.5, []).basis
    for one in (None, basis):
        assert "was not asked" in instructed_sentence(one, unasked)
    assert instructed_sentence(None, found()) == ""
    assert "0 of 63" in instructed_sentence(basis, found())


def test_what_ifeval_asked_is_kept_with_the_figures(tmp_path: Path) -> None:
    """A report made where nobody chose prompts says what was asked elsewhere."""
    reported, basis = tmp_path / "learning.json", Basis(13, 63, 0.85, 0.62)
    assert read_basis(reported) is None
    write_figures(found(), reported, basis)
    assert (read_figures(reported), read_basis(reported)) == (found(), basis)
    write_figures(found(), reported)
    assert read_basis(reported) is None


def test_figures_of_earlier_runs_are_kept(tmp_path: Path) -> None:
    """A run of one arm does not lose another's, unless its directory is gone."""
    first, second, third = list(found().items())[:3]
    for cell, _ in (first, second):
        (tmp_path / cell.name).mkdir()
    keep_figures(dict([first, third]), tmp_path)
    assert keep_figures(dict([second]), tmp_path) == dict([first, second])
    assert read_figures(tmp_path / FIGURES) == dict([first, second])


def test_figures_of_an_older_shape_are_left_out(tmp_path: Path) -> None:
    """What was kept before a figure was added is measured anew, not guessed."""
    (tmp_path / FIGURES).write_text('{"cells": {"a": {"like": 0.5}}}', encoding="utf-8")
    assert read_figures(tmp_path / FIGURES) == {}


def test_membership_shows_both_differences() -> None:
    """Each with its interval."""
    known, left = (Interval(value=v, low=v - 0.1, high=v + 0.1, n=20) for v in (1.5, 0.02))
    table = membership_table(Membership(20, 3, -4.0, -2.5, -3.98, -4.0, known, left, 0))
    assert "1.400 to 1.600" in table[-2]
    assert "-0.080 to 0.120" in table[-1]
