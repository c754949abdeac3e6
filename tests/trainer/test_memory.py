"""What is reckoned of memory holds against what tensors really take."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from benchmarks.tensors import Peak
from tests.families import make_family
from tests.trainer.test_forward import with_adapter
from trainer.forward import quick_forward
from trainer.memory import (
    SHAPES,
    Work,
    drawing_bytes,
    estimate,
    shape_of_config,
    weight_bytes,
)

ROWS, TOKENS, RANK = 4, 128, 4
GB = 10**9


def measured(family: str, *, packed: bool, checkpointing: bool) -> tuple[int, int]:
    """Return the bytes reckoned and those held at most in a step with AdamW, weights included."""
    causal = make_family(family)
    shape = shape_of_config(causal.config, family)
    model = with_adapter(causal)
    forward: Any = quick_forward(model, checkpointing=checkpointing) if packed else model
    if checkpointing and not packed:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
    model.train()
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, fused=True)
    ids = torch.randint(3, 259, (ROWS, TOKENS), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, -1] = 0  # the model's own pass makes a mask of attention only where there is padding
    labels = ids.masked_fill(torch.arange(TOKENS) < TOKENS // 2, -100).masked_fill(mask == 0, -100)
    held = sum(one.numel() * one.element_size() for one in model.parameters())
    with Peak() as peak:
        outputs = forward(
            input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True, use_cache=False
        )
        outputs.log_probs.sum().backward()
        optimizer.step()
    work = Work(
        ROWS, TOKENS, TOKENS // 2, RANK, number=4, device="cpu", packed=packed,
        checkpointing=checkpointing, reference=0,
    )  # fmt: skip
    return estimate(shape, work).total, held + peak.bytes


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "gemma", "mistral with a window"])
def test_reckoned_is_what_is_measured(family: str, packed: bool, checkpointing: bool) -> None:
    """Between 0.9 and 1.35 of the peak: too much rather than too little."""
    expected, found = measured(family, packed=packed, checkpointing=checkpointing)
    assert 0.9 * found < expected < 1.35 * found


def llama(name: str) -> Any:
    return shape_of_config(LlamaConfig(**SHAPES[name]), name)


def test_a_base_is_counted_without_its_weights() -> None:
    """Llama 3's 8B has 8.03 billion parameters, and 41.9 million in an adapter of rank 16."""
    shape = llama("8b")
    assert shape.parameters == 8_030_261_248
    assert 16 * (shape.inputs + shape.outputs) == 41_943_040
    assert weight_bytes(shape, 2, four_bit=False) == 2 * shape.parameters
    # 6.98 billion in 0.5159 bytes, 1.05 billion of embeddings, head and norms in two
    assert weight_bytes(shape, 2, four_bit=True) == pytest.approx(5.70 * GB, rel=0.01)


def test_eight_billion_parameters_fit_a_card_of_24_gb() -> None:
    """In bfloat16 with checkpointing, and in 4 bits with room to spare; not without either."""
    shape = llama("8b")
    work = Work(rows=4, tokens=1024, labelled=512, rank=16)
    assert estimate(shape, work).total > 24 * GB
    lean = estimate(shape, Work(2, 1024, 512, 16, checkpointing=True))
    assert 16 * GB < lean.total < 21 * GB
    four_bit = Work(4, 1024, 512, 16, four_bit=True, packed=False, checkpointing=True)
    assert estimate(shape, four_bit).total < 12 * GB


def test_shards_hold_their_part_and_copies_hold_it_all() -> None:
    """FSDP over four halves the base twice; DDP keeps it whole and the gradients once more."""
    shape = llama("3b")
    alone, copies, shards = (
        estimate(shape, Work(2, 512, 256, 16, gpus=gpus, sharding=sharding))  # type: ignore[arg-type]
        for gpus, sharding in ((1, "none"), (4, "none"), (4, "fsdp"))
    )
    assert copies.weights == alone.weights == pytest.approx(4 * shards.weights, rel=1e-6)
    assert copies.shared == alone.gradients
    assert shards.optimizer == alone.optimizer // 4


def test_the_cache_of_a_drawing_is_keys_and_values_of_every_token() -> None:
    """8B: 2 · 32 layers · 1024 numbers · 2 bytes are 128 KiB a token."""
    shape = llama("8b")
    one = {"prompts": 1, "prompt_tokens": 100, "new_tokens": 28, "number": 2}
    more = drawing_bytes(shape, rows=9, **one) - drawing_bytes(shape, rows=8, **one)
    assert more == 128 * 128 * 1024 + shape.vocabulary * 18
