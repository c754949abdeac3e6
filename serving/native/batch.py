"""The running batch over the compiled decoder: one pass takes everybody's next tokens at once.

The same face as serving.batch.Batch. A pass holds one token of every reply being written and, as
far as the pass stays short, tokens of prompts still being read; nothing is padded and rows never
change places. The prompt with least left goes first, so a short question does not wait for a long
story, and every pass a prompt waits counts for it, so none waits for ever. Used by the model thread
only, except `prepare` and `core_lent`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from core.processors import available_cores
from serving.batch import Draw, Pass, Row
from serving.lora import LoadedAdapter
from serving.native.decoder import NativeDecoder, Span
from serving.native.packing import PackedAdapter
from serving.native.prefixes import Place, Places

_PASS = 64  # what a pass may cost while somebody is writing: bounds the gap in everyone's text
_FINISH = 40  # what it may cost more if that ends a prompt
_PROMPT_LEAST = 16  # of it for prompts, whoever writes
_PROMPT_ALONE = 256  # and while nobody is
_FAR = 800  # tokens of context behind a token that cost as much as the token itself
_PATIENCE = 8  # tokens by which a prompt comes forward with each pass it has waited


def _cost(position: int) -> float:
    """Return what a token at a position costs, the first one being 1."""
    return 1 + position / _FAR


@dataclass(frozen=True, slots=True)
class _Part:
    """A row's tokens in a pass."""

    row: Row
    place: Place
    tokens: Sequence[int]

    @property
    def draws(self) -> bool:
        """Whether the last of them is the newest token of its row."""
        return self.row.length + len(self.tokens) >= len(self.row.prompt)


class NativeBatch:
    """Up to `rows` replies over one compiled decoder that has at least as many rows of cache."""

    lazy = False
    shares_cores = True

    def __init__(self, decoder: NativeDecoder, *, rows: int) -> None:
        self._decoder = decoder
        self._most = rows
        self._places = Places(decoder.rows)
        self._threads = 1
        self._rows: dict[Row, Place] = {}  # in the order they came
        self._waited: Counter[Row] = Counter()  # passes that went by without a prompt
        self._packed: dict[LoadedAdapter, PackedAdapter] = {}

    def set_threads(self, threads: int) -> None:
        """Compute with this many threads; drawing tokens takes one."""
        self._threads = threads
        self._decoder.library.set_threads(threads)
        torch.set_num_threads(1)

    @contextmanager
    def core_lent(self) -> Iterator[None]:
        """Leave a core to the caller where all are in use: two threads that take turns on one core,
        when others wait for the one of them, lose more than a core.
        """
        cores = int(self._threads >= available_cores())
        self._decoder.library.lend_cores(cores)
        try:
            yield
        finally:
            self._decoder.library.lend_cores(-cores)

    def prepare(self, adapter: LoadedAdapter) -> None:
        """Pack an adapter ahead of its first reply. In any thread; raises AdapterRefused."""
        self._packed[adapter] = self._decoder.pack_adapter(adapter)

    def forget(self, adapter: LoadedAdapter) -> None:
        """Drop what is kept of an adapter."""
        self._packed.pop(adapter, None)
        self._places.forget(adapter)

    def join(self, row: Row) -> None:
        """Add a newcomer; what is known of its prompt is not read again."""
        if len(self._rows) == self._most:
            raise RuntimeError(f"the batch is full: {self._most} rows")
        if row.adapter is not None and row.adapter not in self._packed:
            self.prepare(row.adapter)
        start = self._places.take(row.prompt, row.adapter)
        if start.source is not None:
            self._decoder.copy_row(start.source.index, start.place.index, start.known)
        self._decoder.trim_row(start.place.index, len(row.prompt))
        row.length = start.known
        self._rows[row] = start.place

    def leave(self, row: Row, *, clear: bool = False) -> None:
        """Take a row out. `clear` wipes its states: needed where they may not be finite."""
        place = self._rows.pop(row)
        self._waited.pop(row, None)
        if clear:
            self._decoder.clear_row(place.index, self._decoder.slots)
            place.tokens = []
        self._places.leave(place)

    def passes(self) -> Iterator[Pass]:
        """Yield the one pass of this step and the rows in it."""
        parts = self._next_parts()
        if parts:
            yield Pass(lambda: self._run(parts), tuple(part.row for part in parts))

    def _next_parts(self) -> list[_Part]:
        writing = [row for row in self._rows if row.length >= len(row.prompt)]
        parts = [_Part(row, self._rows[row], row.drawn[-1:]) for row in writing]
        readers = sorted(
            (row for row in self._rows if row.length < len(row.prompt)),
            key=lambda row: len(row.prompt) - row.length - _PATIENCE * self._waited[row],
        )
        room = max(_PROMPT_LEAST, _PASS - sum(_cost(row.length) for row in writing))
        room = room if writing else _PROMPT_ALONE
        for row in readers:
            left, each = len(row.prompt) - row.length, _cost(row.length)
            count = left if left * each <= room + _FINISH else max(0, int(room / each))
            if count:
                room -= count * each
                tokens = row.prompt[row.length : row.length + count]
                parts.append(_Part(row, self._rows[row], tokens))
            else:
                self._waited[row] += 1
        return parts

    def _adapter(self, part: _Part) -> PackedAdapter | None:
        return None if part.row.adapter is None else self._packed[part.row.adapter]

    def _run(self, parts: list[_Part]) -> list[Draw]:
        logits = self._decoder.forward(
            [
                Span(
                    part.place.index, part.row.length, part.tokens, self._adapter(part), part.draws
                )
                for part in parts
            ]
        )  # (rows that draw, vocab)
        drawing = [part.row for part in parts if part.draws]
        for part in parts:
            part.row.length += len(part.tokens)
            part.place.tokens += part.tokens
        if not drawing:
            return []
        draws = self._decoder.draw(logits, [row.sampler for row in drawing])
        for row, token in zip(drawing, draws, strict=True):
            if token is not None:
                row.drawn.append(token)
        return list(zip(drawing, draws, strict=True))
