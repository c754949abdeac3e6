"""The order in which examples are trained on: batches of like length and mixed labels, decided
beforehand.

The trainer then reads its data set from front to back. Batches are made here because KTO needs both
labels in each (a shuffle over 42 likes and 198 dislikes leaves a fifth of the batches of eight
without any), and because like lengths waste no padding. Every row is drawn at least once an epoch;
one drawn k times carries a k-th of its weight each time, so the objective stays that of the data.
Knows no torch.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

_BATCHES_SORTED_TOGETHER = 8
"""Lengths are sorted among this many batches at a time: enough to save padding, few enough to stay
random."""


@dataclass(frozen=True, slots=True)
class Row:
    """An example as the order sees it: its place in the data, its side, its length and its
    weight."""

    index: int
    label: bool
    length: int
    weight: float


@dataclass(frozen=True, slots=True)
class Order:
    """Rows one after another, `batch_size` at a time."""

    rows: list[Row]
    batch_size: int


def order_rows(
    rows: Sequence[Row], *, batch_size: int, epochs: float, seed: int, of: int = 1
) -> Order:
    """Lay out `epochs` passes (perhaps a fraction) over the rows as equal batches.

    The batch size is lowered where that makes the batches equal (10 rows by 8 become twice 5), and
    then raised to a multiple of `of`, the devices that share it; fewer rows than that are filled up
    with rows drawn twice.
    """
    sides = [[row for row in rows if row.label is label] for label in (True, False)]
    few, many = sorted(sides, key=len)
    shape = _shape(len(few), len(many), batch_size, of)
    random_ = random.Random(seed)
    laid: list[Row] = []
    for _ in range(math.ceil(epochs)):
        laid += _epoch(few, many, shape, random_)
    batches = max(1, round(epochs * shape.batches))
    return Order(laid[: batches * shape.size], shape.size)


@dataclass(frozen=True, slots=True)
class _Shape:
    """One pass: `few` rows (with repeats) of the smaller side spread over `batches` of `size`
    rows."""

    batches: int
    size: int
    few: int

    def quotas(self) -> list[int]:
        """Return how many of each batch's rows are of the smaller side."""
        return [
            self.few * (batch + 1) // self.batches - self.few * batch // self.batches
            for batch in range(self.batches)
        ]


def _shape(few: int, many: int, batch_size: int, of: int) -> _Shape:
    batches = max(1, math.ceil((few + many) / batch_size))
    slots = max(few, batches) if few else 0
    while slots + many > batches * batch_size:
        batches += 1
        slots = max(few, batches) if few else 0
    size = max(2, math.ceil((slots + many) / batches))
    return _Shape(batches, of * math.ceil(size / of), slots)


def _epoch(few: list[Row], many: list[Row], shape: _Shape, random_: random.Random) -> list[Row]:
    """Lay out one pass: sides spread evenly over the batches, lengths alike within them."""
    few_left = _drawn(few, shape.few, random_)
    many_left = _drawn(many, shape.batches * shape.size - shape.few, random_)
    quotas = shape.quotas()
    laid: list[list[Row]] = []
    for start in range(0, shape.batches, _BATCHES_SORTED_TOGETHER):
        part = quotas[start : start + _BATCHES_SORTED_TOGETHER]
        few_part = _take_sorted(few_left, sum(part))
        many_part = _take_sorted(many_left, len(part) * shape.size - sum(part))
        laid += [[*_take(few_part, quota), *_take(many_part, shape.size - quota)] for quota in part]
    random_.shuffle(laid)
    return [row for batch in laid for row in batch]


def _drawn(side: list[Row], slots: int, random_: random.Random) -> list[Row]:
    """Draw `slots` rows in random order, each as often as the next, and share its weight among its
    copies."""
    if not side:
        return []
    shuffled = random_.sample(side, len(side))
    drawn = [shuffled[slot % len(side)] for slot in range(slots)]
    copies = Counter(row.index for row in drawn)
    return [replace(row, weight=row.weight / copies[row.index]) for row in drawn]


def _take(rows: list[Row], count: int) -> list[Row]:
    taken = rows[:count]
    del rows[:count]
    return taken


def _take_sorted(rows: list[Row], count: int) -> list[Row]:
    return sorted(_take(rows, count), key=lambda row: row.length)
