"""A quick forward pass for training a LoRA adapter on decoders like Llama.

Takes what TRL's trainers give a model (`input_ids`, `attention_mask`, `labels`) and returns what
their loss reads (`log_probs` and the rest), equal to the model's own up to rounding. Quicker in
four ways: tokens are packed without padding and shared beginnings are computed once
(trainer.packing), the head sees only what has a label, joined projections are one product, and the
adapter is multiplied in the base's type while its weights stay float32 (trainer.products).

Families it does not know, dropout, quantized bases and shards keep the model's own forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from trl.trainer.utils import FusedCausalLMOutput

from trainer.packing import Packed, pack_rows
from trainer.products import (
    Gate,
    Linear,
    LoraProduct,
    Norm,
    NormRows,
    Plain,
    SpreadRows,
    TakeOwn,
    TokenLogps,
)

_FAMILIES = (
    "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM",
    "GemmaForCausalLM",
)  # fmt: skip
_ACTIVATIONS = {"silu": False, "gelu_pytorch_tanh": True}
_ROPES = ("default", "linear", "llama3", "yarn")
_IGNORED = -100


def quick_forward(model: Any, *, checkpointing: bool = False) -> PackedForward | None:
    """Return the quick pass over a PeftModel, or None where only its own forward is right."""
    causal = model.get_base_model()
    config = causal.config.get_text_config()
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    known = (
        type(causal).__name__ in _FAMILIES
        and rope in _ROPES
        and _activation(config) in _ACTIVATIONS
        and getattr(causal, "hf_device_map", None) is None
        and not getattr(causal, "is_quantized", False)
        and all(_plain(module) for module in causal.modules() if hasattr(module, "lora_A"))
    )
    return PackedForward(model, checkpointing=checkpointing) if known else None


def _activation(config: Any) -> str:
    return str(getattr(config, "hidden_activation", None) or config.hidden_act)


def _plain(module: Any) -> bool:
    """Whether a PEFT layer is an ordinary LoRA over a plain linear layer, without dropout."""
    return (
        type(module.get_base_layer()) is nn.Linear
        and len(module.lora_A) == 1
        and not any(module.use_dora.values())
        and all(isinstance(one, nn.Identity) for one in module.lora_dropout.values())
        and all(one.bias is None for one in module.lora_B.values())
    )


@dataclass(frozen=True, slots=True)
class _Joined:
    """Projections of one input: the frozen product, and their PEFT layers."""

    linear: Linear
    modules: tuple[Any, ...]

    def __call__(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        a, b = self._adapter()
        return LoraProduct.apply(x, residual, self.linear, a, *b)  # type: ignore[no-any-return, no-untyped-call]

    def _adapter(self) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
        """Return the A below one another and the scaled Bs, in the base's type."""
        if any(getattr(module, "disable_adapters", True) for module in self.modules):
            return None, []
        dtype = self.linear.weight.dtype
        names = [module.active_adapters[0] for module in self.modules]
        pairs = list(zip(self.modules, names, strict=True))
        a = torch.cat([module.lora_A[name].weight for module, name in pairs]).to(dtype)
        return a, [(m.lora_B[name].weight * m.scaling[name]).to(dtype) for m, name in pairs]


@dataclass(frozen=True, slots=True)
class _Layer:
    qkv: _Joined
    out: _Joined
    gate_up: _Joined
    down: _Joined
    attention: Any
    window: int | None


class PackedForward:
    """Called as the model is. Joins projections' weights in place, so nothing is held twice.

    With `checkpointing` only what goes into each layer is kept for the way back, and the layer is
    passed a second time there: less memory, about a third more work.
    """

    def __init__(self, model: Any, *, checkpointing: bool = False) -> None:
        self.checkpointing = checkpointing
        causal = model.get_base_model()
        self._config = causal.config.get_text_config()
        self._decoder = causal.model
        self._head = causal.lm_head
        self._gemma = self._config.model_type == "gemma"
        self._layers = [
            self._layer(layer, index) for index, layer in enumerate(self._decoder.layers)
        ]
        self._last = self._norm(self._decoder.norm)

    def __call__(
        self,
        *,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        labels: torch.Tensor,
        **_: Any,
    ) -> FusedCausalLMOutput:
        """Return the figures of each token with a label, as TRL's fused head does.

        All are (B, T), padded on the right; `labels` are -100 where nothing is asked. Each result
        is (B, T - 1), 0 where there is no label.
        """
        lengths = attention_mask.sum(-1).tolist()
        rows = [row[:length] for row, length in zip(input_ids.tolist(), lengths, strict=True)]
        packed = pack_rows(rows, input_ids.device)
        hidden = self._states(packed)
        mask = labels[:, 1:] != _IGNORED  # (B, T - 1)
        row, place = mask.nonzero(as_tuple=True)
        wanted = hidden.index_select(0, packed.table[row, place])
        found = TokenLogps.apply(  # type: ignore[no-untyped-call]
            NormRows.apply(wanted, self._last),  # type: ignore[no-untyped-call]
            self._head.weight,
            self._head.bias,
            labels[row, place + 1],
        )
        log_probs, entropy, mean_logits, is_top1 = (
            one.new_zeros(mask.shape).masked_scatter(mask, one) for one in found
        )
        return FusedCausalLMOutput(
            loss=-log_probs.sum() / mask.sum().clamp(min=1),
            log_probs=log_probs,
            entropy=entropy,
            mean_logits=mean_logits,
            is_top1=is_top1,
            label_mask=mask,
        )

    def _states(self, packed: Packed) -> torch.Tensor:
        """Return the last layer's states of each distinct token.  # (N, hidden)"""
        hidden: torch.Tensor = self._decoder.embed_tokens(packed.tokens)
        angles = self._decoder.rotary_emb(hidden[None], packed.positions[None])
        cosine, sine = (angle[0, :, None].to(hidden.dtype) for angle in angles)  # (N, 1, head)
        again = self.checkpointing and torch.is_grad_enabled()
        for layer in self._layers:
            inputs = layer, hidden, packed, cosine, sine
            if again:
                hidden = checkpoint(
                    self._through, *inputs, use_reentrant=False, preserve_rng_state=False
                )
            else:
                hidden = self._through(*inputs)
        return hidden

    def _through(
        self,
        layer: _Layer,
        hidden: torch.Tensor,
        packed: Packed,
        cosine: torch.Tensor,
        sine: torch.Tensor,
    ) -> torch.Tensor:
        """Return the states after a layer.  # (N, hidden)"""
        attended = self._attend(layer, layer.qkv(hidden), packed, cosine, sine)
        hidden = layer.out(attended, hidden)
        return layer.down(layer.gate_up(hidden), hidden)

    def _attend(
        self,
        layer: _Layer,
        qkv: torch.Tensor,
        packed: Packed,
        cosine: torch.Tensor,
        sine: torch.Tensor,
    ) -> torch.Tensor:
        """Return what each token's heads attend to.  # (N, heads · head)"""
        size, attention = layer.attention.head_dim, layer.attention
        query, key, value = torch.split(qkv.view(len(qkv), -1, size), self._heads, dim=1)
        if hasattr(attention, "q_norm"):
            query, key = attention.q_norm(query), attention.k_norm(key)
        query, key = (_rotated(x, cosine, sine) for x in (query, key))
        joined = torch.cat([query, key, value], dim=1).flatten(1)  # (N, width)
        spread = SpreadRows.apply(  # type: ignore[no-untyped-call]
            joined, packed.table, packed.owner, packed.again, packed.again_token
        )
        if spread.device.type == "cpu":
            spread = spread.float()  # torch's way back through attention is twice as quick in it
        heads = spread.unflatten(-1, (-1, size)).transpose(1, 2)  # (R, all heads, T, head)
        query, key, value = heads.split(self._heads, dim=1)
        found = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            is_causal=layer.window is None or heads.shape[2] <= layer.window,
            attn_mask=_window_mask(heads, layer.window),
            scale=attention.scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        found = found.transpose(1, 2).flatten(2).to(qkv.dtype)
        return TakeOwn.apply(found, packed.owner)  # type: ignore[no-any-return, no-untyped-call]

    @property
    def _heads(self) -> list[int]:
        config = self._config
        return [
            config.num_attention_heads,
            config.num_key_value_heads,
            config.num_key_value_heads,
        ]

    def _layer(self, layer: Any, index: int) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        kinds = getattr(self._config, "layer_types", None)
        window = getattr(self._config, "sliding_window", None)
        return _Layer(
            qkv=_join(
                (attention.q_proj, attention.k_proj, attention.v_proj),
                self._norm(layer.input_layernorm),
            ),
            out=_join((attention.o_proj,), Plain()),
            gate_up=_join((mlp.gate_proj, mlp.up_proj), self._norm(layer.post_attention_layernorm)),
            down=_join((mlp.down_proj,), Gate(_ACTIVATIONS[_activation(self._config)])),
            attention=attention,
            window=None if kinds and kinds[index] == "full_attention" else window,
        )

    def _norm(self, module: Any) -> Norm:
        return Norm(module.weight.detach().float() + float(self._gemma), self._config.rms_norm_eps)


def _join(modules: Sequence[Any], entry: Any) -> _Joined:
    """Put the modules' weights side by side; each module's own becomes a view of the whole."""
    layers = [_base_layer(module) for module in modules]
    sizes = tuple(layer.out_features for layer in layers)
    weight = torch.cat([layer.weight.detach() for layer in layers])
    for layer, part in zip(layers, torch.split(weight, list(sizes)), strict=True):
        layer.weight.data = part
    bias = None
    if any(layer.bias is not None for layer in layers):
        bias = torch.cat(
            [
                weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias.detach()
                for layer in layers
            ]
        )
    return _Joined(Linear(weight, bias, sizes, entry), tuple(modules))


def _base_layer(module: Any) -> Any:
    return module.get_base_layer() if hasattr(module, "lora_A") else module


def _rotated(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Turn heads (N, heads, d) by their positions (Su et al. 2021), halves as transformers does."""
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat([-second, first], dim=-1) * sine


def _window_mask(heads: torch.Tensor, window: int | None) -> torch.Tensor | None:
    """Return which tokens a sliding layer sees, None where that is all before.  # (T, T) bool"""
    width = heads.shape[2]
    if window is None or width <= window:
        return None
    place = torch.arange(width, device=heads.device)
    back = place[:, None] - place
    return (back >= 0) & (back < window)
