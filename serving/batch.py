"""The running batch: which row holds whose tokens, and the forward passes over them.

Rows 0..decoding-1 draw a token in every `decode`; the rows after them still read their prompts, in
chunks, so that a long prompt never holds up the others for long. One row's result does not depend
on which other rows are there. Knows tokens and adapters, not requests or text. Used by the model
thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from core.errors import ModelError
from serving.cache import RowCache, Window
from serving.lora import AdapterSwitch, LoadedAdapter
from serving.sampling import Sampler, draw_tokens

_SHORTEST_CHUNK = 16
_PROMPT_ALONE = 2048  # prompt tokens read at once while nobody else is writing
_PROMPT_BESIDE = 256  # and between two steps of others: bounds the gap in their text


@dataclass(slots=True, eq=False)
class Row:
    """One reply's place in the batch. `length` counts the tokens whose states are in the cache."""

    prompt: tuple[int, ...]
    adapter: LoadedAdapter | None
    sampler: Sampler
    length: int = 0
    drawn: list[int] = field(default_factory=list)


Draw = tuple[Row, int | None]
"""A row and the token it drew; None if its logits were not finite."""


@dataclass(frozen=True, slots=True)
class Pass:
    """A forward pass yet to be run, and the rows that are lost if it fails."""

    run: Callable[[], list[Draw]]
    rows: tuple[Row, ...]


class RunningBatch(Protocol):
    """What the model thread needs of a batch.

    `lazy` says that an adapter's first pass does work that `prepare` could not do ahead.
    `shares_cores` says that its threads do not stand still for one whose core is taken for a while.
    """

    lazy: bool
    shares_cores: bool

    def join(self, row: Row) -> None:
        """Add a newcomer, whose prompt is read by the next passes."""

    def leave(self, row: Row, *, clear: bool = False) -> None:
        """Take a row out. `clear` wipes its states: needed where they may not be finite."""

    def passes(self) -> Iterator[Pass]:
        """Yield the passes of one step; each is to be run before the next is asked for."""

    def prepare(self, adapter: LoadedAdapter) -> None:
        """Do ahead what an adapter's first reply would wait for. In any thread."""

    def forget(self, adapter: LoadedAdapter) -> None:
        """Drop what is kept of an adapter that no row uses."""

    def set_threads(self, threads: int) -> None:
        """Compute with this many CPU threads. On the model thread."""

    def core_lent(self) -> AbstractContextManager[None]:
        """Leave a core to the caller while the block runs, if it may need one. In any thread."""


class Batch:
    """Up to `rows` replies over one model whose linear layers listen to `switch`."""

    lazy = True
    shares_cores = False

    def __init__(self, model: Any, switch: AdapterSwitch, *, rows: int, max_slots: int) -> None:
        config = model.config.get_text_config()
        self._model = model
        self._switch = switch
        self._device: torch.device = model.device
        self._dtype: torch.dtype = model.dtype
        self._masks = _MaskPlan.of(config)
        self._cache = RowCache(config.num_hidden_layers, rows, max_slots)
        self._rows: list[Row] = []
        self._decoding = 0

    def join(self, row: Row) -> None:
        """Add a newcomer; its prompt is read by the next passes."""
        if len(self._rows) == self._cache.rows:
            raise RuntimeError(f"the batch is full: {self._cache.rows} rows")
        self._rows.append(row)

    def leave(self, row: Row, *, clear: bool = False) -> None:
        """Take a row out. `clear` wipes its states: needed where they may not be finite."""
        place = self._rows.index(row)
        if clear:
            self._cache.clear_row(place)
        if place < self._decoding:
            self._decoding -= 1
            self._fill(place, self._decoding)
            place = self._decoding
        self._fill(place, len(self._rows) - 1)
        self._rows.pop()

    def _fill(self, place: int, source: int) -> None:
        if place != source:
            self._cache.move(source, place, self._rows[source].length)
            self._rows[place] = self._rows[source]

    def passes(self) -> Iterator[Pass]:
        """Yield a pass over the prompts being read, then one over the rows that decode."""
        if readers := self._rows[self._decoding :]:
            budget = _PROMPT_BESIDE if self._decoding else _PROMPT_ALONE
            yield Pass(lambda: self._prefill(readers, budget), tuple(readers))
        if rows := self._rows[: self._decoding]:
            yield Pass(lambda: self._decode(rows), tuple(rows))

    def prepare(self, adapter: LoadedAdapter) -> None:
        """Do nothing: adapters are laid side by side as passes need them."""

    def forget(self, adapter: LoadedAdapter) -> None:
        """Drop every copy of an adapter's tensors held here."""
        self._switch.forget(adapter)

    def set_threads(self, threads: int) -> None:
        """Compute with this many CPU threads."""
        torch.set_num_threads(threads)

    def core_lent(self) -> AbstractContextManager[None]:
        """Nothing: torch's threads cannot stand aside in the middle of a pass."""
        return nullcontext()

    def _prefill(self, readers: list[Row], budget: int) -> list[Draw]:
        """Read about `budget` more prompt tokens; return the first draws of those read whole."""
        chunk = max(_SHORTEST_CHUNK, budget // len(readers))
        parts = [row.prompt[row.length : row.length + chunk] for row in readers]
        logits = self._forward(self._decoding, readers, parts)  # (readers, vocab)
        ready = [i for i, row in enumerate(readers) if row.length == len(row.prompt)]
        draws = self._draw([readers[i] for i in ready], logits[ready])
        for row, _ in draws:
            self._start_decoding(row)
        return draws

    def _decode(self, rows: list[Row]) -> list[Draw]:
        """Draw one more token for every row that has read its prompt."""
        return self._draw(rows, self._forward(0, rows, [row.drawn[-1:] for row in rows]))

    def _draw(self, rows: list[Row], logits: torch.Tensor) -> list[Draw]:
        if not rows:
            return []
        tokens = draw_tokens(logits, [row.sampler for row in rows])
        for row, token in zip(rows, tokens, strict=True):
            if token is not None:
                row.drawn.append(token)
        return list(zip(rows, tokens, strict=True))

    def _start_decoding(self, row: Row) -> None:
        """Move a row whose prompt is read behind the rows that decode."""
        place, target = self._rows.index(row), self._decoding
        if place != target:
            other = self._rows[target]
            self._cache.swap(place, target, max(row.length, other.length))
            self._rows[place], self._rows[target] = other, row
        self._decoding += 1

    def _forward(
        self, first: int, rows: Sequence[Row], parts: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        """Feed each row its next tokens; return the logits after its last one.  # (rows, vocab)"""
        starts = tuple(row.length for row in rows)
        counts = tuple(len(part) for part in parts)
        window = Window(first, starts, counts)
        padded = [[0] * (window.width - len(part)) + list(part) for part in parts]
        tokens_R_T = torch.tensor(padded, device=self._device)
        begins = [start + count - window.width for start, count in zip(starts, counts, strict=True)]
        steps = torch.arange(window.width, device=self._device)
        positions_R_T = torch.tensor(begins, device=self._device)[:, None] + steps  # < 0: padding
        self._cache.aim(window, self._device)
        self._switch.aim([row.adapter for row in rows], self._device)
        logits: torch.Tensor = self._model(
            input_ids=tokens_R_T,
            position_ids=positions_R_T.clamp(min=0),
            attention_mask=self._masks.build(positions_R_T, window.slots, self._dtype),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        for row, count in zip(rows, counts, strict=True):
            row.length += count
        return logits[:, -1]


@dataclass(frozen=True, slots=True)
class _MaskPlan:
    """Which attention masks the model takes: by kind of layer, or one for all of them."""

    window: int | None  # a sliding layer sees this many tokens back, itself included
    by_kind: bool

    @classmethod
    def of(cls, config: Any) -> _MaskPlan:
        """Read the plan off a model's configuration; raises ModelError for other kinds of layer."""
        kinds = set(getattr(config, "layer_types", None) or ())
        if unknown := kinds - {"full_attention", "sliding_attention"}:
            raise ModelError(
                f"{config.model_type}: layers of kind {sorted(unknown)[0]!r} are not supported; "
                "expected a decoder with full or sliding attention"
            )
        window = getattr(config, "sliding_window", None)
        if kinds == {"full_attention"}:
            window = None
        return cls(window=window, by_kind="sliding_attention" in kinds)

    def build(
        self, positions: torch.Tensor, slots: int, dtype: torch.dtype
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """Build the additive masks.

        positions  # (rows, width); each mask  # (rows, 1, width, slots), 0 where a token may look
        """
        slot = torch.arange(slots, device=positions.device)
        seen = slot <= positions[:, :, None]  # (rows, width, slots)
        full = _additive(seen, dtype)
        if self.window is None:
            return full
        near = _additive(seen & (slot > positions[:, :, None] - self.window), dtype)
        return {"full_attention": full, "sliding_attention": near} if self.by_kind else near


def _additive(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    hidden = torch.finfo(dtype).min
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, hidden)[
        :, None
    ]
