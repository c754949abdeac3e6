"""Tiny random decoders of the families that have a quick path, and of one that has none."""

from __future__ import annotations

from typing import Any

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


def make_family(name: str) -> Any:
    """Return a float32 model of a family, the same each time, with no parameter at 0 or 1."""
    torch.manual_seed(3)
    model = FAMILIES[name]().to(torch.float32)
    for key, parameter in model.named_parameters():  # they begin as zeros or ones: hide nothing
        if key.endswith("bias") or "norm" in key:
            parameter.data += 0.3 * torch.randn(parameter.shape)
    return model
