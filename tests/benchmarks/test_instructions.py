"""Instructions that the base follows: chosen once, asked every adapter with the same luck."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.learning.instructions import (
    CHOSEN,
    DATA,
    FOLLOWED,
    PROMPTS,
    Instructed,
    choose,
    find_data,
    follow,
    follows,
    read_choice,
    read_followed,
    read_prompts,
)
from core.jobs import JobSpec

ROWS = [
    {
        "key": key,
        "prompt": f"Say {key} without a comma, please.",
        "instruction_id_list": ["punctuation:no_comma"],
        "kwargs": [{}],
    }
    for key in range(4)
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory with four prompts, and one that cannot be checked here."""
    left_out = {**ROWS[0], "key": 9, "instruction_id_list": ["change_case:capital_word_frequency"]}
    lines = [json.dumps(row) for row in [*ROWS, left_out]]
    (tmp_path / PROMPTS).write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


def no_threes(asked: Instructed, reply: str) -> bool:
    """A rule that no luck decides: all but one prompt are followed, whatever the reply."""
    return asked.key != 3


def spec_of(cell: Path) -> JobSpec:
    """Read the cell's job."""
    return JobSpec.model_validate_json((cell / "job.json").read_bytes())


def test_the_base_chooses_once(data: Path, cell: Path) -> None:
    """Kept is what it passes in every trial; a second choice by another rule changes nothing."""
    choose(cell.parent, spec_of(cell), data, no_threes)
    choice = read_choice(cell.parent)
    assert choice is not None
    assert [one.key for one in choice.prompts] == [0, 1, 2]
    assert (choice.of, choice.echo, choice.short, len(choice.base)) == (4, 1.0, 1.0, 6)
    choose(cell.parent, spec_of(cell), data, lambda asked, reply: True)
    assert read_choice(cell.parent) == choice


def test_an_adapter_is_asked_the_same(data: Path, cell: Path) -> None:
    """Every chosen prompt, once; without a choice there is nothing to ask or to show."""
    with pytest.raises(FileNotFoundError, match="choose the prompts first"):
        follow(cell.parent, cell, no_threes)
    assert read_followed(cell.parent, cell) == ([], [])
    choose(cell.parent, spec_of(cell), data, no_threes)
    follow(cell.parent, cell, no_threes)
    base, own = read_followed(cell.parent, cell)
    assert [one.key for one in base] == [one.key for one in own]
    assert [one.text for one in base] != [one.text for one in own]
    assert all(one.passed for one in own)
    before = (cell / FOLLOWED).stat().st_mtime_ns
    follow(cell.parent, cell, no_threes)
    assert (cell / FOLLOWED).stat().st_mtime_ns == before


def test_prompts_that_cannot_be_checked_are_not_read(data: Path) -> None:
    """The rule that wants other data is left out."""
    assert [one.key for one in read_prompts(data)] == [0, 1, 2, 3]


def test_prompts_are_looked_for(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named, then by the environment; a directory without them is none."""
    assert find_data(data) == data
    monkeypatch.setenv(DATA, str(data))
    assert find_data() == data
    empty = tmp_path / "empty"
    empty.mkdir()
    assert find_data(empty) is None
    shutil.rmtree(empty)
    assert not (data / CHOSEN).exists()


@pytest.mark.parametrize(
    ("rule", "kwargs", "good", "bad"),
    [
        ("punctuation:no_comma", {}, "One and two.", "One, two."),
        ("startend:quotation", {}, '"Hello there."', "Hello there."),
        ("change_case:english_lowercase", {}, "hello there, my friend.", "Hello there, my friend."),
        (
            "length_constraints:number_sentences",
            {"num_sentences": 3, "relation": "less than"},
            "One here. Two here!",
            "One here. Two? Three here. Four.",
        ),
    ],
)
def test_the_real_checkers_tell_right_from_wrong(
    rule: str, kwargs: dict[str, object], good: str, bad: str
) -> None:
    """Without a download, with sentences split by our own rule; an empty reply follows nothing."""
    asked = Instructed(1, "Do it.", (rule,), (kwargs,))
    assert [follows(asked, reply) for reply in (good, bad, "")] == [True, False, False]
