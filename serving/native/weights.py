"""A transformers decoder as the compiled one takes it: packed once, with its cache.

Takes Llama, Mistral, Qwen2, Qwen3 and Gemma; whether the result speaks as transformers does is
checked with a real pass before it is used. An adapter is packed the same way.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from core.errors import AdapterRefused
from serving.lora import LoadedAdapter
from serving.native.library import (
    LANES,
    MODULES,
    PAGE,
    Draw,
    Layer,
    Linear,
    Model,
    NotAvailable,
    Pair,
    Pass,
    load_library,
)
from serving.sampling import Sampler

_FAMILIES = (
    "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM",
    "GemmaForCausalLM",
)  # fmt: skip
_ROPES = ("default", "linear", "llama3", "yarn")  # the angles do not change with the length
_ACTIVATIONS = {"silu": 0, "gelu_pytorch_tanh": 1}
_CACHE_LINE = 64
_NO_MEMORY = -2


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens of one row in a pass: they follow the `first` whose states the row holds already.

    `wanted` asks for the logits after the last of them.
    """

    row: int
    first: int
    tokens: Sequence[int]
    adapter: PackedAdapter | None = None
    wanted: bool = True


class NativeDecoder:
    """A decoder's weights and cache for `rows` rows of `slots` tokens. One thread at a time.

    Raises NotAvailable if the model or the machine is not one it can serve. Keeps nothing of the
    transformers model but its embedding.
    """

    def __init__(self, model: Any, *, rows: int, slots: int) -> None:
        self.library = load_library(model.dtype)
        self.dtype: torch.dtype = model.dtype
        self.rows, self.slots = rows, _padded(slots, PAGE)
        self._kept: list[Any] = []
        config = model.config.get_text_config()
        _check(model, config)
        self.vocab: int = config.vocab_size
        decoder = model.model
        heads = decoder.layers[0].self_attn
        self._layers = (Layer * config.num_hidden_layers)()
        for index, (target, source) in enumerate(zip(self._layers, decoder.layers, strict=True)):
            self._fill(target, source, _window(config, index), config.model_type == "gemma")
        cosine, sine = self._angles(decoder, heads.head_dim)
        states = (config.num_hidden_layers, config.num_key_value_heads, 2, heads.head_dim)
        self.model = Model(
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_dim=heads.head_dim,
            inner=config.intermediate_size,
            vocab=config.vocab_size,
            slots=self.slots,
            rows=rows,
            gelu=_ACTIVATIONS[_activation(config)],
            epsilon=config.rms_norm_eps,
            attention_scale=heads.scaling,
            embedding_scale=_embedding_scale(decoder.embed_tokens, model.dtype),
            embedding=self._keep(decoder.embed_tokens.weight.data.contiguous()),
            norm_last=self._norm(decoder.norm, config.model_type == "gemma"),
            head=self._pack([model.lm_head.weight]),
            cosine=cosine,
            sine=sine,
            layer=self._layers,
            cache=self._keep(_aligned((rows, self.slots, *states), self.dtype)),
        )

    def forward(self, spans: Sequence[Span]) -> torch.Tensor:
        """Run one pass; return the logits of the spans that want them.  # (wanted, vocab) float32

        Writes the states of all tokens into the cache. Raises MemoryError.
        """
        groups = list(dict.fromkeys(span.adapter for span in spans))
        order = sorted(range(len(spans)), key=lambda i: groups.index(spans[i].adapter))
        tokens: list[int] = []
        rows: list[int] = []
        positions: list[int] = []
        starts: dict[PackedAdapter | None, int] = {}
        last: dict[int, int] = {}
        for i in order:
            span = spans[i]
            starts.setdefault(span.adapter, len(tokens))
            tokens += span.tokens
            rows += [span.row] * len(span.tokens)
            positions += range(span.first, span.first + len(span.tokens))
            last[i] = len(tokens) - 1
        wanted = [last[i] for i, span in enumerate(spans) if span.wanted]
        logits = torch.empty(len(wanted), _padded(self.vocab))
        arrays: list[ctypes.Array[Any]] = [
            (ctypes.c_int32 * len(values))(*values)
            for values in (tokens, rows, positions, [*starts.values(), len(tokens)])
        ]
        arrays.append((ctypes.c_void_p * len(groups))(*(_address(group) for group in groups)))
        arrays.append((ctypes.c_int32 * len(wanted))(*wanted))
        addresses = [ctypes.addressof(array) for array in arrays]
        counts = (len(tokens), len(groups), len(wanted), 0)
        if self.library.forward(self.model, Pass(*counts, *addresses, logits.data_ptr())):
            raise MemoryError(f"no memory for a pass over {len(tokens)} tokens")
        return logits[:, : self.vocab]

    def draw(self, logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[int | None]:
        """Draw as serving.sampling.draw_tokens does, from what `forward` returned."""
        draws = (Draw * len(samplers))()
        for draw, sampler in zip(draws, samplers, strict=True):
            sampling = sampler.sampling
            draw.temperature, draw.top_p = sampling.temperature, sampling.top_p
            draw.top_k = sampling.top_k
            draw.point = sampler.point() if sampling.temperature > 0 else 0.0
        self.library.draw_rows(
            logits.data_ptr(), logits.stride(0), logits.shape[1], len(samplers), draws
        )
        if any(draw.token == _NO_MEMORY for draw in draws):
            raise MemoryError("no memory for drawing a token")
        return [draw.token if draw.token >= 0 else None for draw in draws]

    def copy_row(self, source: int, target: int, count: int) -> None:
        """Copy the states of a row's first `count` tokens over another's."""
        self.library.copy_row(self.model, source, target, count)

    def clear_row(self, row: int, count: int) -> None:
        """Zero a row's first states: what is not finite reaches its next owner otherwise."""
        self.library.clear_row(self.model, row, count)

    def pack_adapter(self, adapter: LoadedAdapter) -> PackedAdapter:
        """Lay an adapter out for this decoder; may run in any thread. Raises AdapterRefused."""
        return PackedAdapter(self, adapter)

    def _fill(self, target: Layer, source: Any, window: int, gemma: bool) -> None:
        attention, mlp = source.self_attn, source.mlp
        target.norm_attention = self._norm(source.input_layernorm, gemma)
        target.norm_mlp = self._norm(source.post_attention_layernorm, gemma)
        if hasattr(attention, "q_norm"):
            target.norm_query = self._norm(attention.q_norm, gemma)
            target.norm_key = self._norm(attention.k_norm, gemma)
        target.qkv = self._linear([attention.q_proj, attention.k_proj, attention.v_proj])
        target.out = self._linear([attention.o_proj])
        target.gate_up = self._linear([mlp.gate_proj, mlp.up_proj], alternate=True)
        target.down = self._linear([mlp.down_proj])
        target.window = window

    def _linear(self, modules: Sequence[Any], *, alternate: bool = False) -> Linear:
        weight = self._pack([module.weight for module in modules], alternate=alternate)
        if all(module.bias is None for module in modules):
            return Linear(weight, None)
        biases = [
            torch.zeros(m.out_features) if m.bias is None else m.bias.detach().float()
            for m in modules
        ]
        if alternate:
            biases = [torch.stack([bias.view(-1, LANES) for bias in biases], dim=1).flatten()]
        return Linear(weight, self._keep(torch.cat(biases)))

    def _norm(self, module: Any, gemma: bool) -> int:
        return self._keep((module.weight.detach().float() + float(gemma)).contiguous())

    def _angles(self, decoder: Any, head_dim: int) -> tuple[int, int]:
        """Return cosine and sine of every position, (slots, head_dim / 2) each."""
        positions = torch.arange(self.slots)[None]
        both = decoder.rotary_emb(torch.zeros(1, 1, 1, dtype=torch.float32), positions)
        if both[0].shape[-1] != head_dim:
            raise NotAvailable("only a part of each head is rotated")
        cosine, sine = (self._keep(a[0, :, : head_dim // 2].float().contiguous()) for a in both)
        return cosine, sine

    def _pack(self, weights: Sequence[torch.Tensor], *, alternate: bool = False) -> int:
        return self._keep(pack(self.library, weights, alternate=alternate))

    def _keep(self, tensor: torch.Tensor) -> int:
        self._kept.append(tensor)
        return tensor.data_ptr()


class PackedAdapter:
    """An adapter's pairs, packed for a decoder. `pairs` is what a pass points at."""

    def __init__(self, decoder: NativeDecoder, adapter: LoadedAdapter) -> None:
        model, library = decoder.model, decoder.library
        self.pairs = (Pair * (model.layers * len(MODULES)))()
        self._kept: list[torch.Tensor] = []
        for name, pair in adapter.pairs.items():
            place = _place(name)
            if place is None:
                raise AdapterRefused(
                    f"adapter {adapter.name} changes {name}, which the compiled decoder does not "
                    "take; set serving.decoder to 'generic'"
                )
            ranks = _padded(pair.a.shape[0])
            a = pack(library, [pair.a])
            b = pack(library, [pair.b], inputs=ranks)
            self._kept += [a, b]
            self.pairs[place] = Pair(a.data_ptr(), b.data_ptr(), ranks, 0)


def _address(adapter: PackedAdapter | None) -> int | None:
    return None if adapter is None else ctypes.addressof(adapter.pairs)


def pack(
    library: ctypes.CDLL,
    weights: Sequence[torch.Tensor],
    *,
    inputs: int | None = None,
    alternate: bool = False,
) -> torch.Tensor:
    """Pack (out, in) matrices one after another, or panel by panel in turn.

    `inputs` pads every row with zeros. Returns a flat tensor that begins on a cache line.
    """
    inputs = inputs or weights[0].shape[1]
    panels = [_padded(weight.shape[0]) // LANES for weight in weights]
    packed = _aligned((sum(panels) * inputs * LANES,), weights[0].dtype)
    for index, weight in enumerate(weights):
        source = weight.detach().contiguous()
        first, every = (index, len(weights)) if alternate else (sum(panels[:index]), 1)
        library.pack(packed.data_ptr(), source.data_ptr(), *source.shape, inputs, first, every)
    return packed


def _aligned(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Return zeros that begin on a cache line; memory is only taken where it is written."""
    size = torch.Size(shape).numel() * dtype.itemsize
    memory = torch.from_numpy(np.zeros(size + _CACHE_LINE, dtype=np.uint8))
    start = -memory.data_ptr() % _CACHE_LINE
    return memory[start : start + size].view(dtype)


def _padded(count: int, multiple: int = LANES) -> int:
    return -(-count // multiple) * multiple


def _place(module: str) -> int | None:
    """Return where `model.layers.3.self_attn.q_proj` stands among the pairs."""
    parts = module.split(".")
    if len(parts) != 5 or parts[:2] != ["model", "layers"] or parts[4] not in MODULES:
        return None
    return int(parts[2]) * len(MODULES) + MODULES.index(parts[4])


def _check(model: Any, config: Any) -> None:
    """Raise NotAvailable for a model whose arithmetic the C code does not know."""
    kind = type(model).__name__
    if kind not in _FAMILIES:
        raise NotAvailable(f"it does not know {kind}")
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope not in _ROPES:
        raise NotAvailable(f"it does not know positions of kind {rope!r}")
    if _activation(config) not in _ACTIVATIONS:
        raise NotAvailable(f"it does not know the activation {_activation(config)!r}")
    attention, mlp = model.model.layers[0].self_attn, model.model.layers[0].mlp
    sizes = {
        "hidden_size": config.hidden_size,
        "head_dim": attention.head_dim,
        "intermediate_size": mlp.up_proj.out_features,
    }
    for name, size in sizes.items():
        if size % LANES:
            raise NotAvailable(f"{name} is {size}, no multiple of {LANES}")
    if model.lm_head.bias is not None:
        raise NotAvailable("its head has a bias")


def _activation(config: Any) -> str:
    return str(getattr(config, "hidden_activation", None) or config.hidden_act)


def _window(config: Any, layer: int) -> int:
    """Return how many tokens back a layer sees, 0 for all."""
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None) or 0
    return 0 if kinds and kinds[layer] == "full_attention" else window


def _embedding_scale(module: Any, dtype: torch.dtype) -> float:
    return float(torch.tensor(getattr(module, "scalar_embed_scale", 1.0)).to(dtype))
