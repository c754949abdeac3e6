"""A batch of token rows as one flat list of distinct tokens: no padding, and no beginning twice.

Rows that begin alike (one system prompt, two replies to one prompt) share the tokens of their
common beginning: in a causal decoder those have the same states in every row. Knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Packed:
    """N distinct tokens of R rows of at most T tokens.

    `table` says where each row's tokens stand, 0 behind a row's end. `owner` is the place in the
    flattened table that each token's states are taken from; `again` are the further places where a
    token stands, and `again_token` which token it is.
    """

    tokens: torch.Tensor  # (N,) int64
    positions: torch.Tensor  # (N,) int64
    table: torch.Tensor  # (R, T) int64
    owner: torch.Tensor  # (N,) int64
    again: torch.Tensor  # (D,) int64
    again_token: torch.Tensor  # (D,) int64


def pack_rows(rows: Sequence[Sequence[int]], device: torch.device) -> Packed:
    """Lay rows out; none may be empty."""
    width = max(map(len, rows))
    tokens: list[int] = []
    positions: list[int] = []
    owner: list[int] = []
    again: list[int] = []
    again_token: list[int] = []
    table = [[0] * width for _ in rows]
    before: tuple[Sequence[int], list[int]] = ((), [])
    for index in sorted(range(len(rows)), key=lambda index: tuple(rows[index])):
        row, places = rows[index], table[index]
        shared = _common(before[0], row)
        places[:shared] = before[1][:shared]
        again += range(index * width, index * width + shared)
        again_token += places[:shared]
        for position in range(shared, len(row)):
            places[position] = len(tokens)
            tokens.append(row[position])
            positions.append(position)
            owner.append(index * width + position)
        before = row, places
    made = (tokens, positions, table, owner, again, again_token)
    return Packed(*(torch.tensor(part, dtype=torch.int64, device=device) for part in made))


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how long the two are alike from the start."""
    for index, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return index
    return min(len(one), len(other))
