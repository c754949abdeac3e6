"""Matrices and adapters laid out as the compiled decoder reads them."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from core.errors import AdapterRefused
from serving.lora import LoadedAdapter
from serving.native.library import CHUNK, LANES, MODULES, Linear, Pair

_CACHE_LINE = 64


class PackedAdapter:
    """An adapter's pairs for a decoder of so many layers. `pairs` is what a pass points at.

    With `quantized` the A matrices are bytes, as the base's are. May be made in any thread; raises AdapterRefused.
    """

    def __init__(
        self, library: ctypes.CDLL, layers: int, adapter: LoadedAdapter, *, quantized: bool
    ) -> None:
        self.pairs = (Pair * (layers * len(MODULES)))()
        self._kept: list[torch.Tensor] = []
        for name, pair in adapter.pairs.items():
            place = _place(name)
            if place is None:
                raise AdapterRefused(
                    f"adapter {adapter.name} changes {name}, which the compiled decoder does not "
                    "take; set serving.decoder to 'generic'"
                )
            ranks = padded(pair.a.shape[0])
            a = pack_bytes(library, [pair.a]) if quantized else (pack(library, [pair.a]),)
            b = pack(library, [pair.b], inputs=ranks)
            self._kept += [*a, b]
            addresses = [tensor.data_ptr() for tensor in a]
            down = Linear(None, None, *addresses) if quantized else Linear(*addresses)
            self.pairs[place] = Pair(down, b.data_ptr(), ranks, 0)


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
    panels = [padded(weight.shape[0]) // LANES for weight in weights]
    packed = aligned((sum(panels) * inputs * LANES,), weights[0].dtype)
    for source, first, every in _places(weights, panels, alternate):
        library.pack(packed.data_ptr(), source.data_ptr(), *source.shape, inputs, first, every)
    return packed


def pack_bytes(
    library: ctypes.CDLL, weights: Sequence[torch.Tensor], *, alternate: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pack (out, in) matrices as bytes: w = low + range * byte / 255 in chunks of 32 inputs.

    Laid out as `pack` does. Returns the bytes, and range and low in float16, both flat.
    """
    inputs = weights[0].shape[1]
    panels = [padded(weight.shape[0]) // LANES for weight in weights]
    packed = aligned((sum(panels) * inputs * LANES,), torch.uint8)
    scales = aligned((sum(panels) * inputs // CHUNK * 2 * LANES,), torch.float16)
    for source, first, every in _places(weights, panels, alternate):
        library.pack_bytes(
            packed.data_ptr(), scales.data_ptr(), source.data_ptr(), *source.shape, first, every
        )
    return packed, scales


def _places(
    weights: Sequence[torch.Tensor], panels: Sequence[int], alternate: bool
) -> Iterator[tuple[torch.Tensor, int, int]]:
    """Yield each matrix with its first panel and the distance to its next."""
    for index, weight in enumerate(weights):
        first, every = (index, len(weights)) if alternate else (sum(panels[:index]), 1)
        yield weight.detach().contiguous(), first, every


def aligned(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Return zeros that begin on a cache line; memory is only taken where it is written."""
    size = torch.Size(shape).numel() * dtype.itemsize
    memory = torch.from_numpy(np.zeros(size + _CACHE_LINE, dtype=np.uint8))
    start = -memory.data_ptr() % _CACHE_LINE
    return memory[start : start + size].view(dtype)


def padded(count: int, multiple: int = LANES) -> int:
    """Return the next multiple."""
    return -(-count // multiple) * multiple


def _place(module: str) -> int | None:
    """Return where `model.layers.3.self_attn.q_proj` stands among the pairs."""
    parts = module.split(".")
    if len(parts) != 5 or parts[:2] != ["model", "layers"] or parts[4] not in MODULES:
        return None
    return int(parts[2]) * len(MODULES) + MODULES.index(parts[4])
