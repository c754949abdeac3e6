"""The manifest: names that cannot escape, content that cannot change."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import AdapterRefused, InvalidInput
from core.manifest import (
    MANIFEST,
    PEFT_CONFIG,
    WEIGHTS,
    adapter_name,
    describe_directory,
    parse_adapter_name,
    read_manifest,
    verify_content,
)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A directory with two content files and their manifest."""
    (tmp_path / WEIGHTS).write_bytes(b"weights")
    (tmp_path / PEFT_CONFIG).write_bytes(b"{}")
    manifest = describe_directory(
        tmp_path,
        name="a@v1",
        base_model="tiny",
        base_sha256="0",
        run_id="r",
        recipe="kto",
        created_at="t",
    )
    (tmp_path / MANIFEST).write_text(manifest.model_dump_json(), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    "name", ["../x@v1", "a@v0", "a@1", "A@v1", "@v1", "a@v1/..", "a" * 65 + "@v1"]
)
def test_a_name_that_could_leave_its_directory_is_refused(name: str) -> None:
    """Only <scope>@v<N> of safe characters is a name."""
    with pytest.raises(InvalidInput, match="expected <scope>@v<number>"):
        parse_adapter_name(name)


def test_a_name_reads_back() -> None:
    """Scope and version survive."""
    assert parse_adapter_name(adapter_name("discord-42", 7)) == ("discord-42", 7)


def test_a_whole_adapter_is_accepted(adapter: Path) -> None:
    """What was described verifies."""
    verify_content(adapter, read_manifest(adapter))


def test_a_flipped_byte_is_found(adapter: Path) -> None:
    """Any change of content is refused with both hashes."""
    (adapter / WEIGHTS).write_bytes(b"Weights")
    with pytest.raises(AdapterRefused, match=r"the manifest says .*corrupt or altered"):
        verify_content(adapter, read_manifest(adapter))


def test_a_pickle_beside_the_weights_is_refused(adapter: Path) -> None:
    """No file but the three is tolerated."""
    (adapter / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(AdapterRefused, match="pickled weights are never read"):
        verify_content(adapter, read_manifest(adapter))


def test_a_link_out_of_the_directory_is_refused(adapter: Path, tmp_path: Path) -> None:
    """Content must be plain files."""
    (adapter / WEIGHTS).unlink()
    (adapter / WEIGHTS).symlink_to("/etc/hostname")
    with pytest.raises(AdapterRefused, match="not a plain file"):
        verify_content(adapter, read_manifest(adapter))


def test_a_missing_or_broken_manifest_is_refused(adapter: Path) -> None:
    """Without a readable manifest nothing is loaded."""
    (adapter / MANIFEST).write_text('{"format": 2}')
    with pytest.raises(AdapterRefused, match=r"manifest\.json"):
        read_manifest(adapter)
    (adapter / MANIFEST).unlink()
    with pytest.raises(AdapterRefused, match="never completely published"):
        read_manifest(adapter)
