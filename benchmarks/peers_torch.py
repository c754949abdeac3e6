"""The same requests through transformers and PEFT, as their documentation shows it.

Three ways to serve: PEFT's mixed batch (a batch with an adapter for each row), one `generate` after
another with `set_adapter`, and transformers' continuous batching of the base alone. The base is in
bfloat16 with fused attention, on THREADS threads. Runs in a process of its own; what is loaded
stays loaded there. Drawn tokens count up to and including the one that ends a reply.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from core.basemodel import BaseModel
from core.generation import BASE, GenerationRequest, Message, Sampling

THREADS = 2
BATCH = 16
_ROOM = 2048 - 64
_PAGES, _PASS_TOKENS = 96, 512
"""Of continuous batching's cache and passes: left to itself it takes most of the memory."""
_READ_BYTES = 256 * 2**20
_WARM_UP = GenerationRequest((Message("user", "Hello!"),), BASE, Sampling(max_tokens=4))


@dataclass(frozen=True, slots=True)
class World:
    """The base model and the adapters, each in a directory of its name."""

    base: BaseModel
    adapters: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class _Loaded:
    model: Any
    tokenizer: Any
    end_tokens: frozenset[int]


def mixed_batch(world: World, requests: Sequence[GenerationRequest]) -> float:
    """Return tokens/s of PEFT's mixed batches of BATCH requests, in their order."""
    loaded = _with_adapters(world)
    began = time.perf_counter()
    drawn = sum(
        _generate(loaded, batch, adapter_names=[one.adapter for one in batch])
        for first in range(0, len(requests), BATCH)
        if (batch := requests[first : first + BATCH])
    )
    return drawn / (time.perf_counter() - began)


def one_by_one(world: World, requests: Sequence[GenerationRequest]) -> float:
    """Return tokens/s of one `generate` after another, the adapter set before each."""
    loaded = _with_adapters(world)
    drawn, began = 0, time.perf_counter()
    for request in requests:
        loaded.model.set_adapter(request.adapter)
        drawn += _generate(loaded, [request])
    return drawn / (time.perf_counter() - began)


def continuous_batching(world: World, requests: Sequence[GenerationRequest]) -> float:
    """Return tokens/s of transformers' continuous batching, BATCH requests at once."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    loaded = _plain(world)
    config = GenerationConfig(
        **_sampling(requests[0]),
        eos_token_id=sorted(loaded.end_tokens),
        pad_token_id=loaded.tokenizer.pad_token_id,
    )
    prompts = [_prompt(loaded, request) for request in requests]
    began = time.perf_counter()
    results = loaded.model.generate_batch(
        prompts,
        generation_config=config,
        continuous_batching_config=ContinuousBatchingConfig(
            num_blocks=_PAGES, max_batch_tokens=_PASS_TOKENS, max_requests_per_batch=BATCH
        ),
    )
    took = time.perf_counter() - began
    failed = [one.error for one in results.values() if one.error]
    if failed or len(results) < len(requests):
        reason = failed[0] if failed else "its thread ended early"
        raise RuntimeError(f"{len(results)} of {len(requests)} replies came: {reason}")
    return sum(len(one.generated_tokens) for one in results.values()) / took


def read_bandwidth() -> float:
    """Return the bytes a second that summing a float32 tensor of 256 MB reads, at its median."""
    import torch

    torch.set_num_threads(THREADS)
    tensor = torch.ones(_READ_BYTES // 4)
    taken = []
    for _ in range(9):
        began = time.perf_counter()
        tensor.sum()
        taken.append(time.perf_counter() - began)
    return _READ_BYTES / statistics.median(taken)


@cache
def _plain(world: World) -> _Loaded:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    from serving.base import load_tokenizer

    torch.set_num_threads(THREADS)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model: Any = AutoModelForCausalLM.from_pretrained(
        world.base.path, dtype=torch.bfloat16, attn_implementation="sdpa"
    )
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = load_tokenizer(world.base)
    tokenizer.padding_side = "left"
    configured = model.generation_config.eos_token_id
    ends = configured if isinstance(configured, list) else [configured]
    known = frozenset(one for one in [*ends, tokenizer.eos_token_id] if one is not None)
    loaded = _Loaded(model.eval(), tokenizer, known)
    _generate(loaded, [_WARM_UP] * BATCH)
    return loaded


@cache
def _with_adapters(world: World) -> _Loaded:
    """Load a base of its own with every adapter, in the base's precision: the faster way."""
    from peft import PeftModel

    loaded = _plain.__wrapped__(world)
    first, *rest = world.adapters
    model = PeftModel.from_pretrained(
        loaded.model, first, adapter_name=first.name, autocast_adapter_dtype=False
    )
    for path in rest:
        model.load_adapter(path, adapter_name=path.name, autocast_adapter_dtype=False)
    loaded = _Loaded(model.eval(), loaded.tokenizer, loaded.end_tokens)
    _generate(loaded, [_WARM_UP] * BATCH)
    return loaded


def _generate(loaded: _Loaded, requests: Sequence[GenerationRequest], **more: Any) -> int:
    """Write a reply to each request in one left-padded batch; return the tokens drawn."""
    import torch

    inputs = loaded.tokenizer.pad(
        {"input_ids": [_prompt(loaded, request) for request in requests]}, return_tensors="pt"
    ).to(loaded.model.device)
    torch.manual_seed(requests[0].sampling.seed or 0)
    with torch.inference_mode():
        output = loaded.model.generate(
            **inputs,
            **_sampling(requests[0]),
            eos_token_id=sorted(loaded.end_tokens),
            pad_token_id=loaded.tokenizer.pad_token_id,
            **more,
        )  # (requests, padded prompt + drawn)
    rows = output[:, inputs["input_ids"].shape[1] :].tolist()
    return sum(_drawn(row, loaded.end_tokens) for row in rows)


def _drawn(tokens: list[int], end_tokens: frozenset[int]) -> int:
    return next((i for i, one in enumerate(tokens, start=1) if one in end_tokens), len(tokens))


def _sampling(request: GenerationRequest) -> dict[str, Any]:
    sampling = request.sampling
    return {
        "do_sample": True,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "max_new_tokens": sampling.max_tokens,
    }


def _prompt(loaded: _Loaded, request: GenerationRequest) -> list[int]:
    from serving.prompt import fit_prompt

    return list(fit_prompt(loaded.tokenizer, request.messages, _ROOM).token_ids)
