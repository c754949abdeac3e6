"""Durable files: whole or not at all."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from core.files import (
    advisory_lock,
    publish_directory,
    sha256_file,
    sha256_of_files,
    sweep_temporary,
    write_atomic,
)


def test_a_published_directory_holds_what_was_filled_in(tmp_path: Path) -> None:
    """The target appears with every file."""
    publish_directory(tmp_path / "v1", lambda place: (place / "a").write_text("x"))
    assert (tmp_path / "v1" / "a").read_text() == "x"
    assert [path.name for path in tmp_path.iterdir()] == ["v1"]


def test_a_failed_publication_leaves_nothing(tmp_path: Path) -> None:
    """An exception while filling removes the temporary directory."""

    def fail(place: Path) -> None:
        (place / "a").write_text("x")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        publish_directory(tmp_path / "v1", fail)
    assert list(tmp_path.iterdir()) == []


def test_a_published_directory_is_immutable(tmp_path: Path) -> None:
    """Publishing over an existing target is refused."""
    (tmp_path / "v1").mkdir()
    with pytest.raises(FileExistsError, match="immutable"):
        publish_directory(tmp_path / "v1", lambda _: None)


def test_sweeping_removes_the_dead_and_spares_the_living(tmp_path: Path) -> None:
    """A temporary directory of a dead process goes, one of a living process stays."""
    process = multiprocessing.get_context("spawn").Process(target=int)
    process.start()
    process.join()
    (tmp_path / f".v1.{process.pid}.tmp").mkdir()
    (tmp_path / f".v2.{os.getpid()}.tmp").mkdir()
    removed = sweep_temporary(tmp_path)
    assert [path.name for path in removed] == [f".v1.{process.pid}.tmp"]


def test_an_atomic_write_replaces_the_whole_text(tmp_path: Path) -> None:
    """The new text stands alone and no temporary file stays."""
    path = tmp_path / "a.txt"
    path.write_text("a longer old text")
    write_atomic(path, "new")
    assert path.read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_hash_of_files_is_the_hash_of_their_sorted_lines(tmp_path: Path) -> None:
    """Order of naming does not matter; the value is that of `sha256sum` over the listing."""
    (tmp_path / "a").write_bytes(b"")
    empty = sha256_file(tmp_path / "a")
    assert empty == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert sha256_of_files({"b": empty, "a": empty}) == sha256_of_files({"a": empty, "b": empty})


def test_a_lock_is_held_once(tmp_path: Path) -> None:
    """A second holder is told at once."""
    with advisory_lock(tmp_path / "lock") as first, advisory_lock(tmp_path / "lock") as second:
        assert (first, second) == (True, False)
    with advisory_lock(tmp_path / "lock") as again:
        assert again
