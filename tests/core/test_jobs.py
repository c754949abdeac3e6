"""The job directory's files read back as they were written, and a torn line is survived."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.basemodel import identify_base
from core.errors import InvalidInput, ModelError
from core.jobs import (
    PROGRESS,
    ChatMessage,
    DemonstrationExample,
    PairExample,
    Progress,
    VoteExample,
    read_examples,
    read_progress,
    read_spec,
    write_examples,
)

ASK = [ChatMessage(role="user", content="Hi 👋")]


def test_examples_read_back_equal(tmp_path: Path) -> None:
    """Each type of example survives the file."""
    common = {"feedback_ids": ["f"], "person": "p", "at": "2026-01-01T00:00:00Z", "prompt": ASK}
    examples = [
        VoteExample(**common, completion="a", label=True),
        PairExample(**common, chosen="a", rejected="b"),
        DemonstrationExample(**common, completion="c\n\u2028d", weight=0.5),
    ]
    write_examples(tmp_path / "x.jsonl", examples)
    assert list(read_examples(tmp_path / "x.jsonl")) == examples


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    """The file and the line number stand in the error."""
    (tmp_path / "x.jsonl").write_text('{"type": "vote"}\n')
    with pytest.raises(InvalidInput, match=r"x\.jsonl, line 1"):
        list(read_examples(tmp_path / "x.jsonl"))


def test_a_torn_progress_line_is_left_out(tmp_path: Path) -> None:
    """A crash in the middle of a line loses that line only."""
    row = Progress(at="t", stage="kto", step=1, steps=2, fraction=0.5)
    (tmp_path / PROGRESS).write_text(row.model_dump_json() + '\n{"at": "t", "sta')
    assert read_progress(tmp_path) == [row]


def test_a_missing_job_file_is_named(tmp_path: Path) -> None:
    """An incomplete job directory says so."""
    with pytest.raises(InvalidInput, match="job directory is incomplete"):
        read_spec(tmp_path)


def test_a_base_is_known_by_content(tmp_path: Path) -> None:
    """The same bytes elsewhere are the same base; one byte more is another."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(b"w")
    first = identify_base("x", tmp_path / "a", tmp_path)
    assert first.sha256 == identify_base("x", tmp_path / "b", tmp_path).sha256
    (tmp_path / "b" / "model.safetensors").write_bytes(b"ww")
    assert first.sha256 != identify_base("x", tmp_path / "b", tmp_path).sha256


def test_a_directory_without_weights_is_no_base(tmp_path: Path) -> None:
    """The error says what was expected."""
    with pytest.raises(ModelError, match=r"expected config\.json and \*\.safetensors"):
        identify_base("x", tmp_path, tmp_path)
