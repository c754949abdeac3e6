"""Other families of decoders run by the same path, with adapters, exactly."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)  # fmt: skip

from core.basemodel import identify_base
from core.generation import BASE
from core.settings import ServingSettings
from serving.engine import LocalEngine
from tests.serving.reference import Reference, greedy
from tests.tiny import publish_tiny_adapter

SMALL: dict[str, Any] = {
    "vocab_size": 259, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "initializer_range": 0.2, "max_position_embeddings": 512,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
}  # fmt: skip
GROUPED = {**SMALL, "num_key_value_heads": 2}
FAMILIES: dict[str, Any] = {
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**GROUPED)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**GROUPED, head_dim=32)),
    "gemma": lambda: GemmaForCausalLM(GemmaConfig(**GROUPED, head_dim=16)),
    "llama with biases and scaled positions": lambda: LlamaForCausalLM(
        LlamaConfig(
            **GROUPED, attention_bias=True, mlp_bias=True, tie_word_embeddings=False,
            rope_parameters={
                "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0,
                "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        )
    ),
    "mistral with a window": lambda: MistralForCausalLM(
        MistralConfig(**GROUPED, sliding_window=16)
    ),
    "gemma2 with mixed windows": lambda: Gemma2ForCausalLM(
        Gemma2Config(
            **GROUPED, head_dim=16, sliding_window=16, attn_logit_softcapping=50.0,
            final_logit_softcapping=30.0,
        )
    ),
}  # fmt: skip


BOTH = [(family, "generic") for family in FAMILIES] + [
    (family, "compiled") for family in FAMILIES if not family.startswith("gemma2")
]


@pytest.mark.parametrize(("family", "decoder"), BOTH)
async def test_a_family_is_exact(
    family: str, decoder: Literal["generic", "compiled"], tiny_model: Path, tmp_path: Path
) -> None:
    """Base and adapter in one batch, longer than any window, equal PEFT alone."""
    home = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    torch.manual_seed(3)
    model = FAMILIES[family]().to(torch.float32)
    for name, parameter in model.named_parameters():  # they begin as zeros or ones: hide nothing
        if name.endswith("bias") or "norm" in name:
            parameter.data += 0.3 * torch.randn(parameter.shape)
    model.save_pretrained(home)
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
