"""What training and drawing take of a device's memory, beside what was reckoned beforehand.

Bases of a shape are made with random weights on the device, nothing is fetched. On a GPU the peak
is the allocator's (`reserved` is what it took from the card), on a CPU, with tiny shapes, that of
the tensors made. `--card-gib 24` lets the process have no more than such a card holds.

    python -m benchmarks.memory --json
    python -m benchmarks.memory --shapes 8b --card-gib 24
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.tensors import Peak
from core.jobs import ChatMessage, Example, JobSpec, PairExample, Stage, VoteExample
from tests.tiny import make_byte_tokenizer
from trainer.fit import Fit
from trainer.memory import (
    GIB,
    SHAPES,
    Work,
    drawing_bytes,
    estimate,
    shape_of_config,
)
from trainer.reference import REFERENCE_TOKENS

STEPS = 3
PROMPT_SHARE = 2
"""A reply is as long as what comes before it."""
TEMPLATE_TOKENS = 19
NEW_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to measure: `rows` texts of `tokens` at once (`dpo`: so many pairs)."""

    shape: str
    method: str
    rows: int
    tokens: int
    packed: bool = True
    checkpointing: bool = False
    four_bit: bool = False

    @property
    def name(self) -> str:
        """Say what it is."""
        path = "quick" if self.packed else "own"
        extra = ", checkpointing" if self.checkpointing else ""
        held = "nf4" if self.four_bit else "plain"
        return f"{self.shape} {held} {self.method} {self.rows}×{self.tokens} {path}{extra}"


CASES = (
    Case("135m", "sft", 8, 512),
    Case("135m", "sft", 8, 512, checkpointing=True),
    Case("135m", "kto", 8, 512, packed=False),
    Case("1b", "draw", 256, 256),
    Case("1b", "sft", 4, 1024),
    Case("1b", "dpo", 2, 1024),
    Case("1b", "sft", 4, 1024, packed=False),
    Case("1b", "sft", 4, 1024, packed=False, checkpointing=True),
    Case("3b", "sft", 2, 1024),
    Case("3b", "dpo", 2, 1024, checkpointing=True),
    Case("8b", "draw", 128, 256),
    Case("8b", "sft", 1, 1024),
    Case("8b", "sft", 4, 1024, checkpointing=True),
    Case("8b", "dpo", 2, 1024, checkpointing=True),
    Case("8b", "sft", 2, 1024, packed=False, checkpointing=True),
    Case("8b", "sft", 2, 1024, packed=False, checkpointing=True, four_bit=True),
    Case("8b", "dpo", 2, 1024, packed=False, checkpointing=True, four_bit=True),
)
TINY = (
    Case("tiny", "sft", 4, 256),
    Case("tiny", "kto", 4, 256, checkpointing=True),
    Case("tiny", "dpo", 2, 256),
    Case("tiny", "sft", 4, 256, packed=False),
    Case("tiny", "dpo", 2, 256, packed=False, checkpointing=True),
    Case("tiny", "sft", 4, 256, packed=False, checkpointing=True, four_bit=True),
    Case("tiny", "draw", 16, 128),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """Bytes of one case; `error` in place of a peak where there is none."""

    case: str
    expected: int
    peak: int = 0
    reserved: int = 0
    seconds: float = 0.0
    error: str = ""

    @property
    def ratio(self) -> float:
        """Expected for each byte measured."""
        return self.expected / self.peak if self.peak else 0.0


def main() -> None:
    """Measure every case, print a table and, if asked, one object."""
    options = _parse()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and options.card_gib:
        whole = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, options.card_gib * GIB / whole))
    cases: tuple[Case, ...] = CASES if device == "cuda" else TINY
    if options.shapes:
        cases = tuple(case for case in (*CASES, *TINY) if case.shape in options.shapes.split(","))
    where = torch.cuda.get_device_name(0) if device == "cuda" else "CPU"
    print(f"{where}, torch {torch.__version__}, GiB; reckoned / measured beside each other")
    found = []
    for case in cases:
        one = _tried(case, device)
        found.append(one)
        print(_line(one), flush=True)
    if options.json:
        rows = [{**asdict(one), "ratio": round(one.ratio, 3)} for one in found]
        print(json.dumps({"device": where, "card_gib": options.card_gib, "cases": rows}))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Memory reckoned and memory measured.")
    parser.add_argument("--json", action="store_true", help="print one object as the last line")
    parser.add_argument("--shapes", default="", help=f"some of {', '.join(SHAPES)}")
    parser.add_argument("--card-gib", type=float, default=0.0, help="use no more than this")
    return parser.parse_args()


def _line(one: Measured) -> str:
    gib = f"{one.expected / GIB:8.2f} {one.peak / GIB:8.2f} {one.reserved / GIB:8.2f}"
    return f"{one.case:<48}{gib} {one.ratio:6.3f} {one.seconds:6.1f} s  {one.error}"


def _tried(case: Case, device: str) -> Measured:
    """Measure a case; what does not fit, or is not installed, is told and passed over."""
    began = time.monotonic()
    expected = 0
    try:
        with tempfile.TemporaryDirectory(prefix="thumbtune-memory-") as name:
            expected = _expected(case, device)
            peak, reserved = _measure(case, device, Path(name))
        error = ""
    except (torch.cuda.OutOfMemoryError, MemoryError, ImportError) as failure:
        peak, reserved, error = 0, 0, str(failure).splitlines()[0]
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    return Measured(case.name, expected, peak, reserved, time.monotonic() - began, error)


def _number(device: str) -> int:
    return 2 if device == "cuda" else 4


def _expected(case: Case, device: str) -> int:
    """Return what the arithmetic says; a pair shares its prompt, half of each text."""
    shape, number = shape_of_config(make_config(case.shape), case.shape), _number(device)
    texts = case.rows * (2 if case.method == "dpo" else 1)
    base = Work(
        rows=texts,
        tokens=case.tokens,
        labelled=case.tokens // PROMPT_SHARE,
        rank=16,
        number=number,
        four_bit=case.four_bit,
        device=device,
        packed=case.packed,
        checkpointing=case.checkpointing,
        reference=0 if case.method == "sft" else min(REFERENCE_TOKENS, STEPS * texts * case.tokens),
        distinct=texts * case.tokens * 3 // 4 if case.method == "dpo" else None,
    )
    if case.method != "draw":
        return estimate(shape, base).total
    drawn = drawing_bytes(
        shape,
        rows=case.rows,
        prompts=case.rows // 16,
        prompt_tokens=case.tokens - NEW_TOKENS,
        new_tokens=NEW_TOKENS,
        number=number,
    )
    return number * shape.parameters + drawn


def _measure(case: Case, device: str, directory: Path) -> tuple[int, int]:
    """Return the peak of a few steps, and what the allocator took for it."""
    causal = make_base(case, device)
    tokenizer = make_byte_tokenizer()
    act = _draw if case.method == "draw" else _train
    with _peak(causal, device) as found:
        act(case, device, causal, tokenizer, directory)
    return found[0], found[1]


@contextmanager
def _peak(causal: Any, device: str) -> Iterator[list[int]]:
    """Yield a list that holds the peak and what was reserved once it is closed."""
    found: list[int] = []
    if device == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        yield found
        torch.cuda.synchronize()
        found += [torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()]
        return
    held = sum(one.numel() * one.element_size() for one in causal.parameters())
    with Peak() as peak:
        yield found
    found += [held + peak.bytes, held + peak.bytes]


def make_config(shape: str) -> Any:
    """Return the Llama of a shape."""
    from transformers import LlamaConfig

    return LlamaConfig(**SHAPES[shape], max_position_embeddings=4096)


def make_base(case: Case, device: str) -> Any:
    """Build the base where it will run, its weights random; in 4 bits where asked for."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if device == "cuda" else torch.float32)
    try:
        with torch.device(device):
            causal = LlamaForCausalLM(make_config(case.shape))
    finally:
        torch.set_default_dtype(before)
    causal.config.use_cache = False
    return _in_4_bits(causal, device) if case.four_bit else causal


def _in_4_bits(causal: Any, device: str) -> Any:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ImportError("bitsandbytes is not installed")
    from bitsandbytes.nn import Linear4bit, Params4bit

    for layer in causal.model.layers:
        for parent in (layer.self_attn, layer.mlp):
            for name, old in list(parent.named_children()):
                if type(old) is not torch.nn.Linear:
                    continue
                new = Linear4bit(
                    old.in_features, old.out_features, bias=False, device="meta",
                    compute_dtype=old.weight.dtype, quant_type="nf4",
                )  # fmt: skip
                new.weight = Params4bit(old.weight.data, requires_grad=False, quant_type="nf4")
                setattr(parent, name, new.to(device))
    causal.is_loaded_in_4bit = True
    return causal


def _train(case: Case, device: str, causal: Any, tokenizer: Any, directory: Path) -> None:
    from trainer import train, trainers
    from trainer.tokens import make_encoder

    method = {"sft": "nll", "kto": "apo_zero_unpaired", "dpo": "sigmoid"}
    stage = Stage(
        method=case.method, loss=method[case.method], learning_rate=1e-4, epochs=1.0,
        batch_size=case.rows,
    )  # fmt: skip
    spec = JobSpec(
        run_id="memory", adapter="console@v1", base_path=str(directory), base_model="random",
        base_sha256="0" * 64, recipe="memory", why="", stages=[stage], max_length=case.tokens,
        device=device,
    )  # fmt: skip
    as_it_is = (
        nullcontext() if case.packed else patch.object(trainers, "quick_forward", _no_forward)
    )
    with as_it_is:
        train.train_stage(
            spec, stage, _texts(case), encoder=make_encoder(tokenizer, case.tokens), before=None,
            scratch=directory / "scratch", resume=False, checkpoint_s=1e9,
            on_step=lambda step: None, base=causal,
            fit=Fit(case.rows, checkpointing=case.checkpointing),
        )  # fmt: skip


def _no_forward(model: Any, **_: Any) -> None:
    """Stand in for trainer.forward.quick_forward where the model's own is measured."""


def _texts(case: Case) -> list[Example]:
    """Return so many texts that a pass has STEPS batches, each as long as it may be."""
    asked, said = case.tokens // PROMPT_SHARE - TEMPLATE_TOKENS, case.tokens // PROMPT_SHARE - 1
    texts: list[Example] = []
    for number in range(STEPS * case.rows):
        prompt = [ChatMessage(role="user", content=f"{number:04d}".ljust(asked, "q"))]
        row: dict[str, Any] = {"feedback_ids": [], "person": "a", "at": "", "prompt": prompt}
        one, other = (f"{number:04d}".ljust(said, letter) for letter in "yn")
        if case.method == "dpo":
            texts.append(PairExample(**row, chosen=one, rejected=other))
        else:
            liked = case.method == "sft" or number % 2 == 0
            texts.append(VoteExample(**row, completion=one, label=liked))
    return texts


def _draw(case: Case, device: str, causal: Any, tokenizer: Any, directory: Path) -> None:
    from trainer.draws import _Base
    from trainer.sampling import Drawing, draw_replies

    length = case.tokens - NEW_TOKENS
    prompts = [[3 + row // 16 % 200] * length for row in range(case.rows)]
    drawing = Drawing(frozenset(), NEW_TOKENS, 0.8, 0.95, batch=case.rows)
    draw_replies(_Base(causal), "base", prompts, drawing)


if __name__ == "__main__":
    main()
