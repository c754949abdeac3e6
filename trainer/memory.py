"""What a stage of training takes in memory, reckoned before anything is loaded.

The base is looked at without its weights (its config, on torch's meta device), the rest is
arithmetic on what this trainer keeps: formulas beside the code, in bytes. Held against what tests
and `python -m benchmarks.memory` measure (docs/big-bases.md). Dense decoders only: experts are
counted as parameters, not as layers an adapter is put on.

    python -m trainer.memory --shape 8b --rows 2 --tokens 1024
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig
from transformers.pytorch_utils import Conv1D

from core.errors import ModelError
from trainer.products import LOGIT_ROWS
from trainer.reference import REFERENCE_TOKENS

GIB = 1 << 30
Sharding = Literal["none", "fsdp"]

_BLOCK, _BLOCKS = 64, 256
"""Weights that share a constant in nf4, and constants that share one in turn."""
NF4_BYTES = 0.5 + (1 + 4 / _BLOCKS) / _BLOCK
"""Of a weight: 4 bits, an 8-bit constant for 64 of them, a float32 for 256 of those (double
quantization, Dettmers et al. 2023)."""
ADAMW_BYTES = 2 * 4
"""Of a trained weight: AdamW's two float32 averages."""
_TILE, _TILE_ROWS = 32768, 4096
"""Vocabulary and rows that TRL's head holds at once (trl.kernels.chunked_logprob)."""


def _llama(
    vocabulary: int,
    hidden: int,
    inner: int,
    layers: int,
    heads: int,
    groups: int,
    *,
    tied: bool = True,
) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "tie_word_embeddings": tied,
    }


SHAPES: dict[str, dict[str, Any]] = {
    "tiny": _llama(2000, 128, 512, 4, 8, 2),
    "135m": _llama(49152, 576, 1536, 30, 9, 3),
    "1b": _llama(128256, 2048, 8192, 16, 32, 8),
    "3b": _llama(128256, 3072, 8192, 28, 24, 8),
    "8b": _llama(128256, 4096, 14336, 32, 32, 8, tied=False),
}
"""Sizes people train at: SmolLM2's smallest, and those of Llama 3."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a base counts. `linear` are the weights of the layers that an adapter is put on, and
    that 4 bits hold; `inputs` and `outputs` the sums of those layers' widths, `normed` the width of
    queries and keys where they have a norm.
    """

    name: str
    parameters: int
    linear: int
    largest: int
    inputs: int
    outputs: int
    layers: int
    hidden: int
    inner: int
    queries: int
    keys: int
    heads: int
    vocabulary: int
    normed: int

    @property
    def layer_linear(self) -> int:
        """Weights of one layer's projections."""
        return self.linear // self.layers


@dataclass(frozen=True, slots=True)
class Work:
    """What is asked of one device at a time: `rows` of at most `tokens`, `labelled` of each with a
    label. A pair counts as two rows.

    `number` is the size in bytes of what is computed with, `packed` the quick pass
    (trainer.forward), `reference` the tokens the base is asked about at once (KTO and DPO).
    `distinct` are the tokens of a pass where beginnings are shared, if that is known.
    """

    rows: int
    tokens: int
    labelled: int
    rank: int
    number: int = 2
    four_bit: bool = False
    device: str = "cuda"
    packed: bool = True
    checkpointing: bool = False
    gpus: int = 1
    sharding: Sharding = "none"
    reference: int = REFERENCE_TOKENS
    distinct: int | None = None

    @property
    def count(self) -> int:
        """Tokens of a pass, padding counted."""
        return self.rows * self.tokens

    @property
    def passed(self) -> int:
        """Tokens that go through the layers: the quick pass shares beginnings."""
        return self.distinct if self.packed and self.distinct is not None else self.count


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes on one device. `activations` are what is kept for the way back, `backward` what one
    layer adds on it, `logits` what the head needs: the greater of the last two is added, since the
    head is done before the layers' way back begins. `reference` is the pass over the base before
    training, in place of those three.
    """

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    backward: int
    logits: int
    reference: int
    shared: int

    @property
    def held(self) -> int:
        """What stays from step to step."""
        return self.weights + self.adapter + self.gradients + self.optimizer + self.shared

    @property
    def total(self) -> int:
        """The most that is held at once while training."""
        step = self.activations + max(self.backward, self.logits)
        return self.held + max(step, self.reference)


def estimate(shape: Shape, work: Work) -> Estimate:
    """Reckon what training takes on each device."""
    adapter = work.rank * (shape.inputs + shape.outputs)
    parts = work.gpus if work.sharding == "fsdp" else 1
    kept, extra = _layer_bytes(shape, work)
    opened = shape.largest * work.number if work.four_bit else 0
    if work.checkpointing:  # only what goes in is kept; the layer under way makes the rest again
        kept, extra = work.passed * shape.hidden * work.number, kept + extra
    return Estimate(
        weights=weight_bytes(shape, work.number, four_bit=work.four_bit) // parts,
        adapter=4 * adapter // parts,
        gradients=4 * adapter // parts,
        optimizer=ADAMW_BYTES * adapter // parts,
        activations=kept * shape.layers + _cast_bytes(adapter, work),
        backward=extra + opened,
        logits=_logit_bytes(shape, work),
        reference=_reference_bytes(shape, work) if work.reference else 0,
        shared=_shared_bytes(shape, work, adapter),
    )


def drawing_bytes(
    shape: Shape, *, rows: int, prompts: int, prompt_tokens: int, new_tokens: int, number: int
) -> int:
    """Return what drawing `rows` replies side by side takes beside the base's weights: keys and
    values of every token to come, the whole vocabulary's logits of a token a row (sorted from in
    float32), and the pass over the different prompts.
    """
    token = 2 * shape.layers * shape.keys * number
    cache = rows * (prompt_tokens + new_tokens) * token
    logits = rows * shape.vocabulary * (number + 4 * 4)
    states = prompts * prompt_tokens * number * (4 * shape.hidden + 3 * shape.inner)
    return cache + max(logits, states)


def weight_bytes(shape: Shape, number: int, *, four_bit: bool) -> int:
    """Return the base's own bytes; in 4 bits embeddings, head and norms stay as they are."""
    if not four_bit:
        return number * shape.parameters
    return int(NF4_BYTES * shape.linear) + number * (shape.parameters - shape.linear)


def _layer_bytes(shape: Shape, work: Work) -> tuple[int, int]:
    """Return what a layer keeps for the way back, and what it adds while it goes it.

    Packed (trainer.products): each product keeps its input as it came and z Aᵀ, that is the two
    norms' inputs, the attention's output, gate and up; attention keeps queries, keys, values and
    its output (float32 on a CPU), and a float32 for each head. On the way back through the down
    projection six tensors as wide as gate stand beside each other, through a norm five in float32.

    The model's own with PEFT (read in transformers, peft): each norm keeps a float32 of its input;
    each projection's A a float32 copy of its own input, where the base is not float32 itself; the
    activation and the product of gate and up keep three as wide as gate; attention keeps four as
    wide as the queries, since keys are repeated, and a mask. A norm of queries and keys is the
    model's own in both.
    """
    number, passed, inner = work.number, work.passed, shape.inner
    wide, heads = shape.queries, 4 * shape.heads
    parts = 4 * work.rank * 7
    if work.packed:
        attention = (2 * wide + 2 * shape.keys) * (number if work.device == "cuda" else 4)
        kept = passed * (number * (2 * shape.hidden + wide + 2 * inner) + parts + 4 * shape.normed)
        widest = number * (6 * inner + 2 * shape.hidden)
        norm = number * (2 * inner + 2 * shape.hidden) + 5 * 4 * shape.hidden
        return kept + work.count * (attention + heads), passed * max(widest, norm)
    copies = 4 * shape.inputs // shape.layers
    if number == 4:  # the same tensor for those that share it
        copies = 4 * (2 * shape.hidden + wide + inner)
    attention = number * (4 * wide + work.tokens) + heads
    kept = 8 * shape.hidden + copies + 3 * number * inner + attention + parts + 4 * shape.normed
    return passed * kept, passed * (6 * number + 12) * inner


def _cast_bytes(adapter: int, work: Work) -> int:
    """Return the adapter's copies in the base's type, which the packed pass keeps."""
    return work.number * adapter if work.packed else 0


def _logit_bytes(shape: Shape, work: Work) -> int:
    """Return what turning states into log-probabilities takes: never all tokens × vocabulary.

    Packed: LOGIT_ROWS rows at a time, of which logits, their logarithms and their exponents stand
    in float32 while the next are made (16 bytes a number, and the number itself), and a slope for
    each label. TRL's own: tiles of 4096 rows × 32768 words, and without Triton 29 bytes for each
    number of one.
    """
    labelled = work.rows * work.labelled
    slopes = labelled * shape.hidden * (4 + 2 * work.number)
    if work.packed:
        number = 16 if work.number == 4 else 16 + work.number
        return number * min(LOGIT_ROWS, labelled) * shape.vocabulary + slopes
    rows = min(_TILE_ROWS, labelled if work.device == "cuda" else work.count)
    folded = 0 if work.device == "cuda" else 29 * min(_TILE, shape.vocabulary)
    return rows * (_TILE * work.number + folded) + slopes


def _reference_bytes(shape: Shape, work: Work) -> int:
    """Return what the pass over the base before KTO and DPO takes."""
    once = replace(work, rows=max(1, work.reference // work.tokens), distinct=None)
    states = once.count * work.number * (4 * shape.hidden + 4 * shape.inner)
    return states + _logit_bytes(shape, once)


def _shared_bytes(shape: Shape, work: Work, adapter: int) -> int:
    """Return what several devices take beside: DDP's buckets are a second copy of the gradients;
    FSDP gathers a layer while the one before is at work, and the rest (embeddings, head) at once.
    """
    if work.gpus == 1:
        return 0
    if work.sharding == "none":
        return 4 * adapter
    layer = shape.layer_linear * (NF4_BYTES if work.four_bit else work.number)
    return int(2 * layer + work.number * (shape.parameters - shape.linear))


def shape_of(source: Path | str) -> Shape:
    """Look at a base's config; no weights are read. Raises ModelError."""
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ModelError(f"base model {source}: its config cannot be read: {error}") from error
    return shape_of_config(config, Path(source).name)


def shape_of_config(config: Any, name: str) -> Shape:
    """Build the model without its weights and measure it."""
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    text = config.get_text_config()
    head = model.get_output_embeddings()
    kinds = (nn.Linear, Conv1D)
    layers = [one.weight for one in model.modules() if isinstance(one, kinds) and one is not head]
    heads = getattr(text, "num_attention_heads", None) or 1
    size = getattr(text, "head_dim", None) or text.hidden_size // heads
    groups = getattr(text, "num_key_value_heads", None) or heads
    return Shape(
        name=name,
        parameters=sum(one.numel() for one in model.parameters()),
        linear=sum(one.numel() for one in layers),
        largest=max((one.numel() for one in layers), default=0),
        inputs=sum(one.shape[-1] for one in layers),
        outputs=sum(one.shape[0] for one in layers),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        inner=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        queries=heads * size,
        keys=groups * size,
        heads=heads,
        vocabulary=text.vocab_size,
        normed=any(name.endswith("q_norm") for name, _ in model.named_modules())
        * (heads + groups)
        * size,
    )


CARDS = (
    ("bfloat16", Work(1, 1024, 512, 16)),
    ("bfloat16, checkpointing", Work(1, 1024, 512, 16, checkpointing=True)),
    ("4 bits, checkpointing", Work(1, 1024, 512, 16, 2, True, packed=False, checkpointing=True)),
)
"""How a base may be held; one text of 1024 tokens, half of it the reply."""


def main() -> None:
    """Print what training takes of a device, part by part."""
    parser = argparse.ArgumentParser(description="Reckon the memory of training, in GiB.")
    parser.add_argument("--shape", default="8b", help=f"{', '.join(SHAPES)}, or a base's directory")
    parser.add_argument("--rows", type=int, default=1, help="texts at once; a pair counts as two")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--sharding", choices=("none", "fsdp"), default="none")
    options = parser.parse_args()
    named = options.shape in SHAPES
    shape = (
        shape_of_config(LlamaConfig(**SHAPES[options.shape]), options.shape)
        if named
        else shape_of(options.shape)
    )
    print(f"{shape.name}: {shape.parameters / 1e9:.2f} billion parameters; GiB on each device")
    names = [field.name for field in fields(Estimate)]
    print(f"{'':<24}" + "".join(f"{name:>13}" for name in [*names, "total"]))
    for name, work in CARDS:
        if work.four_bit and options.sharding == "fsdp":
            continue  # a base of 4 bits is held whole
        asked = replace(
            work, rows=options.rows, tokens=options.tokens, labelled=options.tokens // 2,
            rank=options.rank, gpus=options.gpus, sharding=options.sharding,
            packed=work.packed and options.sharding == "none",
        )  # fmt: skip
        found = estimate(shape, asked)
        parts = [*(getattr(found, part) for part in names), found.total]
        print(f"{name:<24}" + "".join(f"{part / GIB:13.2f}" for part in parts))


if __name__ == "__main__":
    main()
