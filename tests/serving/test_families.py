"""Other families of decoders run by the same path, with adapters, exactly."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import pytest

from core.basemodel import identify_base
from core.generation import BASE
from core.sections import ServingSettings
from serving.engine import LocalEngine
from tests.families import FAMILIES, make_family
from tests.serving.reference import Reference, greedy
from tests.tiny import publish_tiny_adapter

BOTH = [(family, "generic") for family in FAMILIES] + [
    (family, "compiled") for family in FAMILIES if not family.startswith("gemma2")
]


@pytest.mark.parametrize(("family", "decoder"), BOTH)
async def test_a_family_is_exact(
    family: str, decoder: Literal["generic", "compiled"], tiny_model: Path, tmp_path: Path
) -> None:
    """Base and adapter in one batch, longer than any window, equal PEFT alone."""
    home = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    make_family(family).save_pretrained(home)
    base = identify_base(family, home, tmp_path)
    name = "fam@v1"
    directory = publish_tiny_adapter(tmp_path / name, home, name, 5, base_sha256=base.sha256)
    reference = Reference(home, {name: directory})
    settings = ServingSettings(decoder=decoder, max_batch=4, max_context_tokens=256)
    engine = LocalEngine(base, settings=settings, dtype="float32", device="cpu", threads=1)
    await engine.start()
    await engine.load(name, directory)
    cases = [("hi", BASE), ("a longer word or two " * 4, name), ("short", name), ("x" * 60, BASE)]
    streams = [engine.generate(greedy(*case)) for case in cases]
    results = [await stream.result() for stream in streams]
    assert [r.token_ids for r in results] == [reference.tokens(*case) for case in cases]
    await engine.close()
