"""An engine on the stand-in for vLLM, and what the tests of it ask."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.basemodel import BaseModel
from core.generation import GenerationRequest, Message, Sampling
from core.manifest import read_manifest
from core.sections import ServingSettings
from serving.vllm import VllmEngine
from tests.serving.reference import NAMES
from tests.vllm_double import VllmDouble

ASK = GenerationRequest((Message("user", "Hello"),), sampling=Sampling(0.0, max_tokens=12))
LONG = replace(ASK, sampling=Sampling(0.0, max_tokens=300))
ONE, TWO, THREE = NAMES


@asynccontextmanager
async def engine_for(
    vllm: VllmDouble, home: Path, *, key: str | None = None, base: BaseModel | None = None,
    rank: int = 16, **about: Any,
) -> AsyncIterator[VllmEngine]:  # fmt: skip
    """Open an engine on a server; `home` is its data directory."""
    bounds = {"remote_url": vllm.url, "max_context_tokens": 512, "max_queue": 40, **about}
    engine = VllmEngine(
        base or vllm.base, settings=ServingSettings(backend="vllm", **bounds), key=key,
        data_dir=home, lora_rank=rank,
    )  # fmt: skip
    try:
        await engine.start()
        yield engine
    finally:
        await engine.close()


def called(name: str, directory: Path) -> str:
    """Return an adapter's name at vLLM."""
    return f"{name}-{read_manifest(directory).sha256[:16]}"
