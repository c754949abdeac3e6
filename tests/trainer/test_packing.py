"""Rows laid out without padding: nothing lost, nothing twice."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.packing import pack_rows

ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=6)


@given(ROWS)
def test_every_row_can_be_read_back(rows: list[list[int]]) -> None:
    """The table leads to each row's tokens and positions, and each beginning stands there once."""
    packed = pack_rows(rows, torch.device("cpu"))
    for row, places in zip(rows, packed.table, strict=True):
        where = places[: len(row)]
        assert packed.tokens[where].tolist() == row
        assert packed.positions[where].tolist() == list(range(len(row)))
    beginnings = {tuple(row[: end + 1]) for row in rows for end in range(len(row))}
    assert len(packed.tokens) == len(beginnings)


@given(ROWS)
def test_every_place_belongs_to_one_token(rows: list[list[int]]) -> None:
    """Owned and repeated places together are all places of all rows, each with its token."""
    packed = pack_rows(rows, torch.device("cpu"))
    width = packed.table.shape[1]
    real = {row * width + t for row, tokens in enumerate(rows) for t in range(len(tokens))}
    places = [*packed.owner.tolist(), *packed.again.tolist()]
    assert sorted(places) == sorted(real)
    flat = packed.table.flatten()
    assert flat[packed.owner].tolist() == list(range(len(packed.tokens)))
    assert flat[packed.again].tolist() == packed.again_token.tolist()
