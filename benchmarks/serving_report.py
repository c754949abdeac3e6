"""What the serving benchmark's samples say: medians, ratios within a round, the limit of memory."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.common import median
from benchmarks.load import ALONE, MIXED, PLAIN, Figures
from benchmarks.results import Row, aligned, number
from core.basemodel import BaseModel
from core.settings import Settings

_BYTES_A_WEIGHT = 1.125  # in 8 bits, with their scales
_COLUMNS = {
    "tokens_per_s": "tokens/s",
    "first_p50_ms": "first p50 ms",
    "first_p95_ms": "first p95 ms",
    "gap_p50_ms": "gap p50 ms",
    "gap_p99_ms": "gap p99 ms",
}


@dataclass(frozen=True, slots=True)
class Measured:
    """A sample for each round: of cells by name, of everything else by what it is."""

    cells: dict[str, list[Figures]] = field(default_factory=lambda: defaultdict(list))
    samples: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    peaks_mib: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def figures_of(measured: Measured) -> dict[str, Any]:
    """Return the medians and, within each round, the ratios to the peers."""
    mixed, plain, alone = (_speeds(measured, cell.name) for cell in (MIXED, PLAIN, ALONE))
    first = measured.samples["first_token_ms"]
    found = measured.samples.get
    return {
        "cells": {name: _medians(rounds) for name, rounds in measured.cells.items()},
        "others": {name: median(rounds) for name, rounds in measured.samples.items()},
        "ratios": {
            "serving_16x4_vs_peft_mixed": _ratio(mixed, found("peft_mixed_16x4")),
            "serving_16x4_vs_llama_cpp": _ratio(mixed, found("llama_cpp_16")),
            "serving_1_vs_llama_cpp": _ratio(alone, found("llama_cpp_1")),
            "ttft_1_vs_llama_cpp": _ratio(first, found("llama_cpp_first_token_ms")),
            "serving_16x4_vs_16x0": _ratio(mixed, plain),
        },
        "peak_memory_mib": measured.peaks_mib,
        "notes": measured.notes,
    }


def memory_limit(
    settings: Settings, base: BaseModel, measured: Measured, bandwidth: float
) -> dict[str, Any]:
    """Return what one chat reads of memory a second, and its share of `bandwidth` (bytes/s).

    Bytes a token: every weight of the linear layers and the head, once.
    """
    from serving.base import resolve_device, resolve_dtype
    from serving.decoders import Choice, describe_decoder

    device = resolve_device(settings.model.device)
    dtype = resolve_dtype(settings.model.dtype, device)
    choice = Choice(settings.serving.decoder, settings.serving.quantization)
    decoder = describe_decoder(choice, dtype, device)
    size = _BYTES_A_WEIGHT if "8 bits" in decoder else dtype.itemsize
    token_bytes = size * _linear_weights(base)
    read = token_bytes * median(_speeds(measured, ALONE.name))
    return {
        "decoder": decoder,
        "bytes_a_token": token_bytes,
        "read_gb_per_s": read / 1e9,
        "bandwidth_gb_per_s": bandwidth / 1e9,
        "share": read / bandwidth,
    }


def rows_of(figures: dict[str, Any]) -> list[Row]:
    """Return the comparisons and the bounds wanted."""
    ratios, other = figures["ratios"], figures["others"].get
    mixed, plain, alone = (
        figures["cells"][cell.name]["tokens_per_s"] for cell in (MIXED, PLAIN, ALONE)
    )
    return [
        Row(
            "16 chats over 4 adapters, tokens/s; PEFT's mixed batch",
            mixed,
            other("peft_mixed_16x4"),
            ratios["serving_16x4_vs_peft_mixed"],
            at_least=5.5,
        ),
        Row(
            "16 chats over 4 adapters, tokens/s; llama.cpp, base, one by one",
            mixed,
            other("llama_cpp_16"),
            ratios["serving_16x4_vs_llama_cpp"],
            at_least=5,
        ),
        Row(
            "1 chat, tokens/s; llama.cpp",
            alone,
            other("llama_cpp_1"),
            ratios["serving_1_vs_llama_cpp"],
            at_least=0.9,
        ),
        Row(
            "first token of 200 unknown ones, ms; llama.cpp",
            other("first_token_ms"),
            other("llama_cpp_first_token_ms"),
            ratios["ttft_1_vs_llama_cpp"],
            at_most=2,
        ),
        Row(
            "16 chats over 4 adapters, tokens/s; our own over the base",
            mixed,
            plain,
            ratios["serving_16x4_vs_16x0"],
            at_least=0.85,
        ),
        *_unbound(figures),
    ]


def _unbound(figures: dict[str, Any]) -> list[Row]:
    """Return the comparisons that nothing is asked of."""
    cells, other = figures["cells"], figures["others"].get
    return [
        Row(f"{what}, tokens/s; {whose}", ours, peer, ours / peer if peer else None)
        for what, cell, whose, name in (
            ("16 chats over 4 adapters", "16x4", "PEFT, set_adapter", "peft_set_adapter"),
            (
                "16 chats",
                "16x0",
                "transformers' continuous batching",
                "transformers_continuous_16x0",
            ),
            ("1 chat, one adapter", "1x1", "llama.cpp", "llama_cpp_1_adapter"),
        )
        for ours, peer in [(cells[cell]["tokens_per_s"], other(name))]
    ]


def cell_lines(figures: dict[str, Any]) -> list[str]:
    """Return the table of all cells, chats by adapters."""
    cells = sorted(figures["cells"].items(), key=lambda one: [int(n) for n in one[0].split("x")])
    return aligned(
        ("chats x adapters", *_COLUMNS.values()),
        [[name, *(number(cell[column]) for column in _COLUMNS)] for name, cell in cells],
    )


def other_lines(figures: dict[str, Any]) -> list[str]:
    """Return memory's peak and limit, and what could not be measured, as sentences."""
    limit, peaks = figures["memory_limit"], figures["peak_memory_mib"]
    return [
        f"Rounds: {figures['rounds']}. Decoder: {limit['decoder']}.",
        "Peak memory: " + ", ".join(f"{number(mib)} MiB ({what})" for what, mib in peaks.items()),
        f"1 chat reads {limit['bytes_a_token'] / 1e6:.0f} MB a token, "
        f"{limit['read_gb_per_s']:.1f} GB/s, {limit['share']:.0%} of the "
        f"{limit['bandwidth_gb_per_s']:.1f} GB/s that can be read with 2 threads",
        *figures["notes"],
    ]


def _linear_weights(base: BaseModel) -> int:
    """Count the weights of a llama's linear layers and its head."""
    config = json.loads((base.path / "config.json").read_text(encoding="utf-8"))
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    width = config.get("head_dim") or hidden // heads
    attention = 2 * hidden * width * (heads + config["num_key_value_heads"])
    layer = attention + 3 * hidden * config["intermediate_size"]
    return int(config["num_hidden_layers"] * layer + hidden * config["vocab_size"])


def _speeds(measured: Measured, cell: str) -> list[float]:
    return [one.tokens_per_s for one in measured.cells[cell]]


def _medians(rounds: list[Figures]) -> dict[str, float]:
    return {name: median([asdict(one)[name] for one in rounds]) for name in _COLUMNS}


def _ratio(ours: list[float], theirs: list[float] | None) -> float | None:
    """Return the median of the ratios within the rounds; None if the peer lacks a round."""
    if not theirs or len(theirs) != len(ours):
        return None
    return median([one / other for one, other in zip(ours, theirs, strict=True)])
