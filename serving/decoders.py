"""Which decoder runs the batch: the compiled one where it can, transformers' own everywhere else.

Both have the same face and draw the same tokens. Before the compiled one is used it must agree with
transformers on a short text: a family that changed in a new version is noticed here.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal

import torch

from core.errors import ModelError
from serving.batch import Batch, RunningBatch
from serving.lora import wrap_linears
from serving.native.batch import NativeBatch
from serving.native.decoder import NativeDecoder, Quantization, Span
from serving.native.library import NotAvailable, load_library

log = logging.getLogger(__name__)

_TEXT_TOKENS = 24
_LOWEST_CORRELATION = {torch.float32: 0.99999, torch.bfloat16: 0.99}
"""Of the two decoders' logits: rounding explains more than this, another arithmetic does not."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What the settings ask for, as `serving.decoder` and `serving.quantization` say it."""

    decoder: Literal["auto", "compiled", "generic"] = "auto"
    quantization: Quantization = "auto"


def describe_decoder(choice: Choice, dtype: torch.dtype, device: torch.device) -> str:
    """Say which decoder a start would try here; builds the compiled one if need be.

    Raises ModelError if it is demanded and cannot be had.
    """
    decoder = choice.decoder
    if decoder == "generic":
        return "transformers' own, as serving.decoder says"
    try:
        _check_device(device)
        quantized = choice.quantization != "none" and load_library(dtype).quantized()
    except NotAvailable as reason:
        if decoder == "compiled":
            raise ModelError(f"the compiled decoder cannot be used: {reason}") from reason
        return f"transformers' own; the compiled one is not used: {reason}"
    weights = (
        "weights in 8 bits" if quantized else f"weights in {str(dtype).removeprefix('torch.')}"
    )
    return f"compiled for this processor, {weights}, if the model is of a family it knows"


def _check_device(device: torch.device) -> None:
    if device.type != "cpu":
        raise NotAvailable(f"it runs on the CPU, and the model is on {device}")


def make_batch(model: Any, choice: Choice, *, rows: int, slots: int) -> RunningBatch:
    """Return an empty batch of `rows` rows over the model, which belongs to it from now on.

    Raises ModelError if the compiled decoder is demanded and cannot be used.
    """
    if choice.decoder != "generic":
        try:
            return _compiled(model, choice.quantization, rows, slots)
        except NotAvailable as reason:
            if choice.decoder == "compiled" or choice.quantization == "int8":
                raise ModelError(f"the compiled decoder cannot be used: {reason}") from reason
            log.info("replies are written by transformers' own decoder: %s", reason)
    return Batch(model, wrap_linears(model), rows=rows, max_slots=slots)


def _compiled(model: Any, quantization: Quantization, rows: int, slots: int) -> NativeBatch:
    _check_device(model.device)
    spare = max(4, rows // 2)  # rows of cache for chats that may go on
    decoder = NativeDecoder(model, rows=rows + spare, slots=slots, quantization=quantization)
    _compare(model, decoder)
    return NativeBatch(decoder, rows=rows)


def _compare(model: Any, decoder: NativeDecoder) -> None:
    """Raise NotAvailable unless both give the same logits, up to rounding."""
    with torch.inference_mode():
        ids = torch.arange(7, 7 + 13 * _TEXT_TOKENS, 13) % decoder.vocab
        wanted = model(input_ids=ids[None], use_cache=False).logits[0].float()  # (tokens, vocab)
        found = torch.cat(
            [decoder.forward([Span(0, i, [token])]) for i, token in enumerate(ids.tolist())]
        )
    decoder.clear_row(0, _TEXT_TOKENS)
    lowest = min(
        float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in zip(wanted, found, strict=True)
    )
    if not lowest >= _LOWEST_CORRELATION[decoder.dtype]:
        raise NotAvailable(
            f"it differs from transformers: their logits correlate at {lowest:.4f} only"
        )
