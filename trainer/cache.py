"""Keys and values of tokens that were passed already: with room to grow, copied, put together.

What several texts begin with (a chat template's system prompt is often longer than what a person
says) is passed once and copied; texts of like length are passed together and their caches joined.
Only where every layer sees all tokens: to one with a window, padding would push others out of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import Any

import torch
import torch.nn.functional as F
from transformers.cache_utils import DynamicCache, DynamicLayer

PADDING, PADDING_CUDA = 64, 4096
"""Tokens of padding above which texts are passed in parts: on a CPU each token takes its time, a
GPU has room for many at once. Neither bound was chosen by measuring."""


class Room(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values of one layer in a buffer with room for all tokens to come.

    Growing by concatenation copies everything that is there for every token.
    """

    def __init__(self, tokens: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tokens = tokens
        self._buffers: tuple[torch.Tensor, ...] = ()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add states (R, heads, T, size); return all there are, as views."""
        states = key_states, value_states
        if not self.is_initialized:
            self._open(states, len(key_states))
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        for buffer, new in zip(self._buffers, states, strict=True):
            buffer[:, :, start:end] = new
        return self._show(end)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows; one named twice is there twice."""
        if self.is_initialized:
            held = self._held()
            self._open(held, len(indices))
            self._fill([states[indices] for states in held])

    def copied(self, rows: int, tokens: int) -> Room:
        """Return room for so many tokens in which so many rows go on from this one's first."""
        room = Room(tokens)
        if self.is_initialized:
            room._open(self._held(), rows)
            room._fill([states[:1] for states in self._held()])
        return room

    @classmethod
    def joined(cls, parts: Sequence[Room], tokens: int) -> Room:
        """Return the parts' rows below one another; those of shorter parts begin later.

        Before them are zeros: what is masked is multiplied by 0, and must be a number.
        """
        room, end = cls(tokens), max(part.get_seq_length() for part in parts)
        held = [part._held() for part in parts]
        room._open(held[0], sum(len(keys) for keys, _ in held))
        room._fill(
            [
                torch.cat([F.pad(states, (0, 0, end - states.shape[2], 0)) for states in own])
                for own in zip(*held, strict=True)
            ]
        )
        return room

    def _open(self, alike: Sequence[torch.Tensor], rows: int) -> None:
        """Make empty buffers for tensors like these two, (_, heads, _, size)."""
        self.lazy_initialization(*alike)
        self._buffers = tuple(
            states.new_empty((rows, states.shape[1], self._tokens, states.shape[3]))
            for states in alike
        )

    def _held(self) -> tuple[torch.Tensor, ...]:
        """Return all keys and all values there are, as views.  # (R, heads, T, size) each"""
        end = self.get_seq_length()
        return tuple(buffer[:, :, :end] for buffer in self._buffers)

    def _fill(self, held: Sequence[torch.Tensor]) -> None:
        """Put keys and values at the beginning of the buffers; one row goes into all."""
        for buffer, states in zip(self._buffers, held, strict=True):
            buffer[:, :, : states.shape[2]] = states
        self._show(held[0].shape[2])

    def _show(self, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = (buffer[:, :, :end] for buffer in self._buffers)
        self.keys, self.values = keys, values
        return keys, values


def roomy_cache(causal: Any, tokens: int) -> DynamicCache:
    """Return a cache for so many tokens a row; layers that hold anything else stay as they are."""
    cache = DynamicCache(config=causal.config)
    cache.layers = [
        Room(tokens) if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


def is_roomy(cache: DynamicCache) -> bool:
    """Say whether every layer sees all tokens, so that this cache can be copied and joined."""
    return all(isinstance(layer, Room) for layer in cache.layers)


def copied(cache: DynamicCache, rows: int, tokens: int) -> DynamicCache:
    """Return a cache for so many tokens a row, in which each row goes on from this one's first."""
    return _of([layer.copied(rows, tokens) for layer in _rooms(cache)])


def joined(caches: Sequence[DynamicCache], tokens: int) -> DynamicCache:
    """Return the caches' rows in one for so many tokens, all of them ending at the same place."""
    layers = zip(*map(_rooms, caches), strict=True)
    return _of([Room.joined(parts, tokens) for parts in layers])


def _of(layers: Sequence[Room]) -> DynamicCache:
    cache = DynamicCache()
    cache.layers = list(layers)
    return cache


def _rooms(cache: DynamicCache) -> list[Room]:
    return [layer for layer in cache.layers if isinstance(layer, Room)]


def beginning(texts: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Return what all of several texts begin with; each has a token more."""
    if len(texts) < 2:
        return ()
    columns = zip(*(text[:-1] for text in texts), strict=False)
    return tuple(column[0] for column in takewhile(lambda column: len({*column}) == 1, columns))


def pass_beginning(
    causal: Any, texts: Sequence[Sequence[int]], *enough: type[BaseException]
) -> tuple[int, Callable[[int, int], dict[str, Any]]]:
    """Pass over what all of the texts begin with; return how many tokens that is, none where a
    layer has a window, and what a pass over so many rows of so many tokens is told to go on from
    there. A pass may end by what `enough` names.
    """
    shared = beginning(texts)
    cache = roomy_cache(causal, len(shared))
    if not shared or not is_roomy(cache):
        return 0, lambda rows, tokens: {"use_cache": False}
    ids = torch.tensor([shared], device=causal.device)
    with suppress(*enough):
        causal.get_decoder()(input_ids=ids, past_key_values=cache, use_cache=True)
    return len(shared), lambda rows, tokens: {
        "past_key_values": copied(cache, rows, tokens),
        "use_cache": True,
    }


def of_like_length(lengths: Sequence[int], device: torch.device) -> list[range]:
    """Return the places of texts that are passed together, in order; `lengths` ascend.

    A part ends where the next text would bring its padding above what the device bears.
    """
    most = PADDING_CUDA if device.type == "cuda" else PADDING
    parts: list[range] = []
    start, total = 0, 0
    for place, length in enumerate(lengths):
        if length * (place - start) - total > most:
            parts.append(range(start, place))
            start, total = place, 0
        total += length
    return [*parts, range(start, len(lengths))]
