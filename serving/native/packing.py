"""Matrices and adapters laid out as the compiled decoder reads them."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from collections.abc import Iterator, Sequence

import torch

from core.errors import AdapterRefused
from serving.lora import LoadedAdapter
from serving.native.library import CHUNK, LANES, MODULES, Linear, Pair

_CACHE_LINE = 64


class PackedAdapter:
    """An adapter's pairs for a decoder of so many layers. `pairs` is what a pass points at.

    With `quantized` the A matrices are bytes, as the base's are. May be made in any thread; raises
    AdapterRefused.
    """

    def __init__(
        self, library: ctypes.CDLL, layers: int, adapter: LoadedAdapter, *, quantized: bool
    ) -> None:
        self.pairs = (Pair * (layers * len(MODULES)))()
        places = [_place(adapter, name) for name in adapter.pairs]
        shapes = [_Shape(pair.a, quantized) for pair in adapter.pairs.values()]
        ups = [
            padded(pair.b.shape[0]) * shape.ranks * pair.b.element_size()
            for pair, shape in zip(adapter.pairs.values(), shapes, strict=True)
        ]
        room = Room(
            sum(up + shape.size for up, shape in zip(ups, shapes, strict=True)), 3 * len(ups)
        )
        self._kept = room
        parts = zip(places, adapter.pairs.values(), shapes, ups, strict=True)
        for place, pair, shape, up in parts:
            down = shape.pack(library, pair.a, room)
            b = pair.b.contiguous()
            target = room.take(up)
            library.pack(target, b.data_ptr(), *b.shape, shape.ranks, 0, 1)
            self.pairs[place] = Pair(down, target, shape.ranks, 0)


class Room:
    """Zeros for `parts` parts of `size` bytes in all, each on a cache line of its own."""

    def __init__(self, size: int, parts: int) -> None:
        self._memory = aligned((size + parts * _CACHE_LINE,), torch.uint8, huge=False)
        self._next = self._memory.data_ptr()

    def take(self, size: int) -> int:
        """Return the address of the next `size` bytes."""
        address = self._next
        self._next += padded(size, _CACHE_LINE)
        return address


class _Shape:
    """How much room an A (rank, in) takes, packed."""

    def __init__(self, a: torch.Tensor, quantized: bool) -> None:
        self.ranks = padded(a.shape[0])
        self._quantized = quantized
        numbers = self.ranks * a.shape[1]
        self._scales = numbers // CHUNK * 2 * torch.float16.itemsize if quantized else 0
        self._numbers = numbers if quantized else numbers * a.element_size()
        self.size = self._numbers + self._scales

    def pack(self, library: ctypes.CDLL, a: torch.Tensor, room: Room) -> Linear:
        """Write it into the room."""
        source, target = a.contiguous(), room.take(self._numbers)
        if not self._quantized:
            library.pack(target, source.data_ptr(), *source.shape, source.shape[1], 0, 1)
            return Linear(target)
        scales = room.take(self._scales)
        library.pack_bytes(target, scales, source.data_ptr(), *source.shape, 0, 1)
        return Linear(None, None, target, scales)


def pack(
    library: ctypes.CDLL, weights: Sequence[torch.Tensor], *, alternate: bool = False
) -> torch.Tensor:
    """Pack (out, in) matrices one after another, or panel by panel in turn.

    Returns a flat tensor that begins on a cache line.
    """
    inputs = weights[0].shape[1]
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


def aligned(shape: tuple[int, ...], dtype: torch.dtype, *, huge: bool = True) -> torch.Tensor:
    """Return zeros that begin on a page; memory is only taken where it is written.

    With `huge` in large pages where the system has them: read quicker, longer in coming.
    """
    size = torch.Size(shape).numel() * dtype.itemsize
    memory = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if huge and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a system without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)[:size].view(dtype).view(shape)


def padded(count: int, multiple: int = LANES) -> int:
    """Return the next multiple."""
    return -(-count // multiple) * multiple


def _place(adapter: LoadedAdapter, module: str) -> int:
    """Return where `model.layers.3.self_attn.q_proj` stands among the pairs."""
    parts = module.split(".")
    if len(parts) != 5 or parts[:2] != ["model", "layers"] or parts[4] not in MODULES:
        raise AdapterRefused(
            f"adapter {adapter.name} changes {module}, which the compiled decoder does not take; "
            "set serving.decoder to 'generic'"
        )
    return int(parts[2]) * len(MODULES) + MODULES.index(parts[4])
