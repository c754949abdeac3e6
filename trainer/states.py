"""What the base makes of a reply inside: hidden states averaged over the reply's tokens.

Three layers, at a quarter, a half and three quarters of the way up, where what a text is like
stands out more than what comes next. No gradients, the adapter off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.errors import ModelError
from trainer.cache import pass_beginning
from trainer.sampling import NOWHERE
from trainer.scoring import Scored

LAYERS = 3
_TOKENS = 4096
"""Tokens in a batch, padding counted."""


def reply_states(
    causal: Any,
    rows: Sequence[Scored],
    on_progress: Callable[[float], None] = lambda fraction: None,
) -> NDArray[np.float64]:
    """Return the averaged states of each reply, layer beside layer.  # (N, LAYERS · hidden)

    `causal` is a decoder with its head, as transformers has them.
    """
    out = np.zeros((len(rows), width(causal)))
    done = 0
    with torch.inference_mode(), _Kept(causal, only=True) as kept:
        before, going_on = pass_beginning(causal, [row.prompt_ids for row in rows], _Enough)
        for group in _batches(rows):
            kept.clear()
            ids, mask, spoken = _padded([rows[i] for i in group], before, causal.device)
            with suppress(_Enough):
                causal.get_decoder()(input_ids=ids, attention_mask=mask, **going_on(*mask.shape))
            share = (spoken / spoken.sum(1, keepdim=True).clamp(min=1)).unsqueeze(-1)  # (B, T, 1)
            means = [(states.float() * share).sum(1) for states in kept]  # LAYERS × (B, hidden)
            out[group] = torch.cat(means, dim=1).double().cpu().numpy()
            done += len(group)
            on_progress(done / len(rows))
    return out


def width(causal: Any) -> int:
    """Return how many numbers a reply's states are."""
    return LAYERS * int(causal.config.get_text_config().hidden_size)


class Overheard:
    """The same averages, taken while replies are drawn, at no further cost.

    Open around `draw_replies`, which calls `heard` after each token. A reply's last token is never
    passed through the model, so it does not count.
    """

    def __init__(self, causal: Any, replies: int) -> None:
        self._kept = _Kept(causal)
        rows = replies + 1  # the last, NOWHERE, takes what ended replies say after their end
        self._sums = torch.zeros((rows, width(causal)), device=causal.device)
        self._counts = torch.zeros((rows, 1), device=causal.device)

    def __enter__(self) -> Overheard:
        self._states = self._kept.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._kept.__exit__(*error)

    def heard(self, places: Sequence[int]) -> None:
        """Add the states of the token just passed, of the replies at these places."""
        now = torch.cat([states[:, -1].float() for states in self._states[-LAYERS:]], dim=1)
        self._states.clear()
        self._sums[list(places)] += now
        self._counts[list(places)] += 1

    def averages(self) -> NDArray[np.float64]:
        """Return the states of each reply.  # (N, LAYERS · hidden)"""
        means = self._sums / self._counts.clamp(min=1)
        return means[:NOWHERE].double().cpu().numpy()


def _layers(causal: Any) -> Any:
    """Return the decoder's layers; raises ModelError for a family that keeps them elsewhere."""
    decoder = causal.get_decoder()
    for name in ("layers", "h"):
        if hasattr(decoder, name):
            return getattr(decoder, name)
    raise ModelError(
        f"recipe bon: {type(causal).__name__} has no layers that can be read; use recipe apo"
    )


class _Enough(Exception):
    """Ends a pass through the model: the layers above are not needed."""


class _Kept:
    """The outputs of the chosen layers, kept in order while open; with `only` a pass ends there."""

    def __init__(self, causal: Any, *, only: bool = False) -> None:
        layers = _layers(causal)
        self._only, self._device = only, causal.device
        self._layers = [
            layers[max(0, len(layers) * (part + 1) // (LAYERS + 1) - 1)] for part in range(LAYERS)
        ]
        self._states: list[torch.Tensor] = []
        self._hooks: list[Any] = []

    def __enter__(self) -> list[torch.Tensor]:
        def keep(module: Any, inputs: Any, output: Any) -> None:
            states = output[0] if isinstance(output, tuple) else output
            self._states.append(states.to(self._device))  # layers may stand on several devices
            if self._only and len(self._states) == LAYERS:
                raise _Enough

        self._hooks = [layer.register_forward_hook(keep) for layer in self._layers]
        return self._states

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()


def _batches(rows: Sequence[Scored]) -> Iterator[list[int]]:
    """Yield places of rows of like length, the longest first."""
    lengths = [len(row.prompt_ids) + len(row.reply_ids) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: -lengths[i])
    while order:
        size = max(1, _TOKENS // max(1, lengths[order[0]]))
        yield order[:size]
        order = order[size:]


def _padded(
    rows: Sequence[Scored], before: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return token ids but for the first `before`, the attention mask over all, and which tokens
    are the reply's, padded on the right.

    # (B, T - before), (B, T), (B, T - before)
    """
    width = max(len(row.prompt_ids) + len(row.reply_ids) for row in rows)
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    spoken = torch.zeros((len(rows), width))
    for place, row in enumerate(rows):
        start, end = len(row.prompt_ids), len(row.prompt_ids) + len(row.reply_ids)
        ids[place, :end] = torch.tensor([*row.prompt_ids, *row.reply_ids])
        mask[place, :end] = 1
        spoken[place, start:end] = 1
    return ids[:, before:].to(device), mask.to(device), spoken[:, before:].to(device)
