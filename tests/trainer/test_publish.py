"""A published adapter is whole, immutable and idempotent."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import AdapterRefused, Conflict
from core.manifest import MANIFEST, Manifest, read_manifest, verify_content
from tests.tiny import make_tiny_adapter
from trainer.publish import publish_adapter


def publish(job: Path, target: Path, name: str = "console@v1") -> Manifest:
    return publish_adapter(
        job, target, name=name, base_model="tiny", base_sha256="0" * 64, run_id="run_1",
        recipe="apo", created_at="2026-01-01T00:00:00.000000Z",
    )  # fmt: skip


@pytest.fixture(scope="module")
def job(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("job")
    make_tiny_adapter(directory / "adapter", tiny_model, seed=1)
    return directory


def test_publishing_twice_is_publishing_once(job: Path, tmp_path: Path) -> None:
    """The second time returns the same manifest and touches nothing."""
    target = tmp_path / "console@v1"
    manifest = publish(job, target)
    stamp = (target / MANIFEST).stat().st_mtime_ns
    assert publish(job, target) == manifest == read_manifest(target)
    assert (target / MANIFEST).stat().st_mtime_ns == stamp
    verify_content(target, manifest)


def test_other_content_or_another_name_is_a_conflict(
    job: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """What is published never changes."""
    publish(job, tmp_path / "a")
    make_tiny_adapter(tmp_path / "job" / "adapter", tiny_model, seed=2)
    with pytest.raises(Conflict, match="published adapters never change"):
        publish(tmp_path / "job", tmp_path / "a")
    with pytest.raises(Conflict, match="take the next version"):
        publish(job, tmp_path / "a", name="console@v2")


def test_a_damaged_or_missing_adapter_is_refused(job: Path, tmp_path: Path) -> None:
    """A job without an adapter, and a target whose bytes changed, are refused with the reason."""
    with pytest.raises(AdapterRefused, match="the job has not finished"):
        publish(tmp_path, tmp_path / "x")
    publish(job, tmp_path / "a")
    (tmp_path / "a" / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(AdapterRefused, match="corrupt or altered"):
        publish(job, tmp_path / "a")
