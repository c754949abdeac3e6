"""Which transformers models the compiled decoder can serve, and what it must know of each."""

from __future__ import annotations

from typing import Any

import torch

from serving.native.library import LANES, NotAvailable

_FAMILIES = (
    "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM",
    "GemmaForCausalLM",
)  # fmt: skip
_ROPES = ("default", "linear", "llama3", "yarn")  # the angles do not change with the length
ACTIVATIONS = {"silu": 0, "gelu_pytorch_tanh": 1}
"""The C code's number of each."""


def check(model: Any, config: Any) -> None:
    """Raise NotAvailable for a model whose arithmetic the C code does not know."""
    kind = type(model).__name__
    if kind not in _FAMILIES:
        raise NotAvailable(f"it does not know {kind}")
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope not in _ROPES:
        raise NotAvailable(f"it does not know positions of kind {rope!r}")
    if activation(config) not in ACTIVATIONS:
        raise NotAvailable(f"it does not know the activation {activation(config)!r}")
    attention, mlp = model.model.layers[0].self_attn, model.model.layers[0].mlp
    sizes = {
        "hidden_size": config.hidden_size,
        "head_dim": attention.head_dim,
        "intermediate_size": mlp.up_proj.out_features,
    }
    for name, size in sizes.items():
        if size % LANES:
            raise NotAvailable(f"{name} is {size}, no multiple of {LANES}")
    if not len(model.model.embed_tokens.weight) == len(model.lm_head.weight) == config.vocab_size:
        raise NotAvailable("its embedding, head and vocabulary differ in size")
    if model.lm_head.bias is not None:
        raise NotAvailable("its head has a bias")


def activation(config: Any) -> str:
    """Return the name of the MLP's activation."""
    return str(getattr(config, "hidden_activation", None) or config.hidden_act)


def window(config: Any, layer: int) -> int:
    """Return how many tokens back a layer sees, 0 for all."""
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None) or 0
    return 0 if kinds and kinds[layer] == "full_attention" else window


def embedding_scale(module: Any, dtype: torch.dtype) -> float:
    """Return what embeddings are multiplied by, rounded as the model rounds it."""
    return float(torch.tensor(getattr(module, "scalar_embed_scale", 1.0)).to(dtype))
