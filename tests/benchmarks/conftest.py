"""What the benchmarks' tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.jobs import JobSpec
from tests.tiny import make_tiny_adapter


@pytest.fixture
def cell(tmp_path: Path, tiny_model: Path) -> Path:
    """A finished cell of the tiny model, as far as asking it goes."""
    spec = JobSpec(
        run_id="run_1", adapter="community@v1", base_path=str(tiny_model), base_model="tiny",
        base_sha256="0" * 64, recipe="apo", why="", stages=[], lora_rank=4, max_length=64,
    )  # fmt: skip
    (tmp_path / "cell").mkdir()
    (tmp_path / "cell" / "job.json").write_text(spec.model_dump_json(), encoding="utf-8")
    make_tiny_adapter(tmp_path / "cell" / "adapter", tiny_model, seed=0)
    return tmp_path / "cell"
