"""The compiled decoder with one model's weights and cache: passes over tokens, and draws.

Made from a transformers model of a family it knows (serving.native.families); whether it speaks as
transformers does is for the caller to check (serving.decoders).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from serving.lora import LoadedAdapter
from serving.native.families import ACTIVATIONS, activation, check, embedding_scale, window
from serving.native.library import (
    CHUNK,
    LANES,
    PAGE,
    Draw,
    Layer,
    Linear,
    Model,
    NotAvailable,
    Pass,
    load_library,
)
from serving.native.packing import PackedAdapter, aligned, pack, pack_bytes, padded
from serving.sampling import Sampler

Quantization = Literal["auto", "int8", "none"]

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

    def __init__(
        self, model: Any, *, rows: int, slots: int, quantization: Quantization = "none"
    ) -> None:
        self.library = load_library(model.dtype)
        self.dtype: torch.dtype = model.dtype
        self.rows, self.slots = rows, padded(slots, PAGE)
        self._kept: list[Any] = []
        config = model.config.get_text_config()
        check(model, config)
        self.quantized = self._quantizes(config, model.model.layers[0].self_attn, quantization)
        self.vocab: int = config.vocab_size
        decoder = model.model
        heads = decoder.layers[0].self_attn
        self._layers = (Layer * config.num_hidden_layers)()
        for index, (target, source) in enumerate(zip(self._layers, decoder.layers, strict=True)):
            self._fill(target, source, window(config, index), config.model_type == "gemma")
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
            gelu=ACTIVATIONS[activation(config)],
            epsilon=config.rms_norm_eps,
            attention_scale=heads.scaling,
            embedding_scale=embedding_scale(decoder.embed_tokens, model.dtype),
            embedding=self._keep(decoder.embed_tokens.weight.data.contiguous()),
            norm_last=self._norm(decoder.norm, config.model_type == "gemma"),
            head=self._linear([model.lm_head]),
            cosine=cosine,
            sine=sine,
            layer=self._layers,
            cache=self._keep(aligned((rows, self.slots, *states), self.dtype, huge=False)),
        )

    def forward(self, spans: Sequence[Span]) -> torch.Tensor:
        """Run one pass; return the logits of the spans that want them.  # (wanted, vocab) float32

        Writes the states of all tokens into the cache. Raises MemoryError, IndexError.
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
        if not all(0 <= token < self.vocab for token in tokens):
            raise IndexError(f"a token outside the vocabulary of {self.vocab}")
        if not all(0 <= position < self.slots for position in positions):
            raise IndexError(f"a position beyond the {self.slots} slots of a row")
        wanted = [last[i] for i, span in enumerate(spans) if span.wanted]
        logits = torch.empty(len(wanted), padded(self.vocab))
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

    def trim_row(self, row: int, count: int) -> None:
        """Give back the memory behind a row's first `count` tokens."""
        self.library.trim_row(self.model, row, count)

    def pack_adapter(self, adapter: LoadedAdapter) -> PackedAdapter:
        """Lay an adapter out for this decoder; may run in any thread. Raises AdapterRefused."""
        return PackedAdapter(self.library, self.model.layers, adapter, quantized=self.quantized)

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
        target.out.coarse = target.down.coarse = 1  # rounding there reaches the logits least
        target.window = window

    def _quantizes(self, config: Any, attention: Any, quantization: Quantization) -> bool:
        """Whether the weights are held as bytes. Raises NotAvailable if they must and cannot be."""
        if quantization == "none":
            return False
        widths = {config.hidden_size, config.intermediate_size, attention.o_proj.in_features}
        reason = None
        if not self.library.quantized():
            reason = "this processor (AVX-512 VNNI) and type (bfloat16) do not multiply bytes"
        elif any(width % CHUNK for width in widths):
            reason = f"its widths {sorted(widths)} are no multiples of {CHUNK}"
        if reason and quantization == "int8":
            raise NotAvailable(f"serving.quantization is 'int8', but {reason}")
        return reason is None

    def _linear(self, modules: Sequence[Any], *, alternate: bool = False) -> Linear:
        weights = [module.weight for module in modules]
        if self.quantized:
            packed = [self._keep(t) for t in pack_bytes(self.library, weights, alternate=alternate)]
            linear = Linear(None, None, *packed)
        else:
            linear = Linear(self._keep(pack(self.library, weights, alternate=alternate)))
        linear.bias = self._bias(modules, alternate=alternate)
        return linear

    def _bias(self, modules: Sequence[Any], *, alternate: bool) -> int | None:
        if all(module.bias is None for module in modules):
            return None
        biases = [
            torch.zeros(m.out_features) if m.bias is None else m.bias.detach().float()
            for m in modules
        ]
        if alternate:
            biases = [torch.stack([bias.view(-1, LANES) for bias in biases], dim=1).flatten()]
        return self._keep(torch.cat(biases))

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

    def _keep(self, tensor: torch.Tensor) -> int:
        self._kept.append(tensor)
        return tensor.data_ptr()


def _address(adapter: PackedAdapter | None) -> int | None:
    return None if adapter is None else ctypes.addressof(adapter.pairs)
