"""Fixtures of the serving tests: a tiny base, three adapters, engines, and PEFT's own replies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import torch

from core.basemodel import BaseModel, identify_base
from core.sections import ServingSettings
from serving import elsewhere
from serving.engine import LocalEngine
from tests.serving.reference import NAMES, Reference
from tests.tiny import publish_tiny_adapter
from tests.vllm_double import VllmDouble


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_base(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    """The tiny model, identified."""
    return identify_base("tiny", tiny_model, tmp_path_factory.mktemp("hashes"))


@pytest.fixture(scope="session")
def adapters(tiny_base: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Published directories of three adapters that differ, by name."""
    home = tmp_path_factory.mktemp("adapters")
    return {
        name: publish_tiny_adapter(
            home / name, tiny_base.path, name, seed, base_sha256=tiny_base.sha256
        )
        for seed, name in enumerate(NAMES, start=1)
    }


@pytest.fixture(scope="session")
def reference(tiny_base: BaseModel, adapters: dict[str, Path]) -> Reference:
    """PEFT running each adapter alone."""
    return Reference(tiny_base.path, adapters)


@pytest_asyncio.fixture(params=["compiled", "generic"])
async def engine(
    tiny_base: BaseModel, request: pytest.FixtureRequest
) -> AsyncIterator[LocalEngine]:
    """A started fp32 engine on the tiny base, no adapter resident; once by each decoder."""
    engine = LocalEngine(
        tiny_base,
        settings=ServingSettings(
            decoder=request.param, max_batch=8, max_queue=8, max_context_tokens=512
        ),
        dtype="float32",
        device="cpu",
        threads=1,
    )
    await engine.start()
    yield engine
    await engine.close()


@pytest_asyncio.fixture
async def loaded(engine: LocalEngine, adapters: dict[str, Path]) -> LocalEngine:
    """The engine with all three adapters resident."""
    for name, directory in adapters.items():
        await engine.load(name, directory)
    return engine


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait long between tries."""
    monkeypatch.setattr(elsewhere, "PAUSES_S", (0.05, 0.1))


@pytest_asyncio.fixture
async def vllm(tiny_base: BaseModel) -> AsyncIterator[VllmDouble]:
    """A running server."""
    async with VllmDouble(tiny_base) as running:
        yield running
