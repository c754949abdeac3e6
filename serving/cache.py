"""The key and value states of every row of the running batch, preallocated.

Row r keeps its states in slots 0..length-1 whatever its neighbours do, so rows join, leave and
change places without touching each other, and a step writes one slot per row instead of copying the
cache. Implements transformers' `Cache`, so that any decoder writes into it by its own attention
code. Knows no requests. Used by the model thread only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

_FIRST_SLOTS = 256


@dataclass(frozen=True, slots=True)
class Window:
    """The part of the cache one forward pass works on: rows `first..first+len(counts)-1`.

    Row i appends `counts[i]` tokens at slot `starts[i]`; its tokens stand at the right of a (rows,
    width) input padded on the left.
    """

    first: int
    starts: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def rows(self) -> int:
        """How many rows take part."""
        return len(self.counts)

    @property
    def width(self) -> int:
        """Tokens of the longest row in this pass."""
        return max(self.counts)

    @property
    def slots(self) -> int:
        """Slots that any of the rows may look at."""
        return max(start + count for start, count in zip(self.starts, self.counts, strict=True))


class RowCache(Cache):
    """Slots for at most `rows` rows; grows by doubling up to `max_slots`."""

    def __init__(self, layers: int, rows: int, max_slots: int) -> None:
        self.rows = rows
        self.max_slots = max_slots
        self.window = Window(0, (), ())
        self.slot_index: torch.Tensor | None = None  # (rows,) where a one-token pass writes
        self.row_layers = [_RowLayer(self) for _ in range(layers)]
        super().__init__(layers=list(self.row_layers))

    def aim(self, window: Window, device: torch.device) -> None:
        """Point the next forward pass at a window, growing the buffers if it needs more slots."""
        self.window = window
        self.slot_index = torch.tensor(window.starts, device=device) if window.width == 1 else None
        for layer in self.row_layers:
            layer.reserve(window.slots)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` slots of one row over another."""
        for layer in self.row_layers:
            layer.copy_row(source, target, length)

    def swap(self, one: int, other: int, length: int) -> None:
        """Let two rows change places, as far as `length` slots."""
        for layer in self.row_layers:
            layer.swap_rows(one, other, length)

    def clear_row(self, row: int) -> None:
        """Zero a row: what is not finite would reach its next owner through a masked slot."""
        for layer in self.row_layers:
            layer.clear_row(row)


class _RowLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One decoder layer's states: keys and values of shape (rows, kv_heads, slots, head_dim)."""

    is_sliding = False

    def __init__(self, owner: RowCache) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._owner = owner

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        slots = min(self._owner.max_slots, max(_FIRST_SLOTS, self._owner.window.slots))
        self.keys = self._empty(key_states, slots)
        self.values = self._empty(value_states, slots)
        self.is_initialized = True

    def _empty(self, states: torch.Tensor, slots: int) -> torch.Tensor:
        _, heads, _, size = states.shape
        return states.new_zeros((self._owner.rows, heads, slots, size))

    def reserve(self, slots: int) -> None:
        if self.keys is None or self.values is None or slots <= (have := self.keys.shape[2]):
            return
        grown = min(self._owner.max_slots, max(slots, 2 * have))
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = self._empty(old, grown)
            new[:, :, :have] = old
            setattr(self, name, new)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write (rows, kv_heads, width, head_dim) into the window; return the slots it may see."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None  # noqa: S101 - for the type checker
        window = self._owner.window
        last = window.first + window.rows
        keys, values = self.keys[window.first : last], self.values[window.first : last]
        if (slot := self._owner.slot_index) is not None:
            row = torch.arange(window.rows, device=slot.device)
            keys[row, :, slot] = key_states[:, :, 0]
            values[row, :, slot] = value_states[:, :, 0]
        else:
            for i, (start, count) in enumerate(zip(window.starts, window.counts, strict=True)):
                keys[i, :, start : start + count] = key_states[i, :, -count:]
                values[i, :, start : start + count] = value_states[i, :, -count:]
        return keys[:, :, : window.slots], values[:, :, : window.slots]

    def copy_row(self, source: int, target: int, length: int) -> None:
        for states in (self.keys, self.values):
            if states is not None:
                states[target, :, :length] = states[source, :, :length]

    def swap_rows(self, one: int, other: int, length: int) -> None:
        for states in (self.keys, self.values):
            if states is not None:
                states[[one, other], :, :length] = states[[other, one], :, :length]

    def clear_row(self, row: int) -> None:
        for states in (self.keys, self.values):
            if states is not None:
                states[row].zero_()

    def get_seq_length(self) -> int:
        return max(self._owner.window.starts, default=0)

    def get_max_length(self) -> int:
        return self._owner.max_slots

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._owner.window.slots, 0
