"""Fixtures every package's tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# two OpenMP threads on a busy machine are 20 times slower than one, and a tiny model wants no more
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny random Llama with a byte tokenizer."""
    from tests.tiny import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that load the default model: the longest one would be alone at the
    end, while the other worker has nothing left to do."""
    first = {item.path for item in items if item.get_closest_marker("real_model")}
    items.sort(key=lambda item: item.path not in first)
