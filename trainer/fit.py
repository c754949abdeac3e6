"""How a batch is laid on a device, so that it fits in the memory that is free.

The batch stays the recipe's: what does not fit at once is passed in parts before a step is taken,
and where that is not enough, layers are passed twice (checkpointing). So the result means the same
on a small card. What cannot fit at all is refused before anything is loaded, with what would help.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch

from core.errors import InvalidInput
from core.jobs import JobSpec, Stage
from core.processors import available_cores
from trainer.faults import EXIT_MEMORY, JobFault
from trainer.laid import Laid
from trainer.memory import GIB, Estimate, Shape, Work, estimate
from trainer.model import choose_device, job_dtype
from trainer.reference import REFERENCE_TOKENS

SHARE = 0.92
"""Of the free memory, what is counted on: the allocator cannot use every gap."""
SPARE_BYTES = {"cuda": 1 << 28, "mps": 1 << 28, "cpu": 1 << 27}
"""What libraries take for themselves: work space of matrix products, mostly."""


class NotEnoughMemory(JobFault, MemoryError):
    """A stage cannot fit on its device."""

    exit_code = EXIT_MEMORY


@dataclass(frozen=True, slots=True)
class Fit:
    """A batch of examples is passed `rows` at a time on each device, `passes` times, before a step
    is taken. `expected` and `free` are bytes on a device, 0 where nobody asked.
    """

    rows: int
    passes: int = 1
    checkpointing: bool = False
    expected: int = 0
    free: int = 0

    def halved(self, least: int) -> Fit | None:
        """Return the next smaller way to lay the same batch, of `least` rows or more, or None."""
        for part in range(2, self.rows // least + 1):
            if self.rows % part == 0:
                return replace(self, rows=self.rows // part, passes=self.passes * part)
        return None if self.checkpointing else replace(self, checkpointing=True)

    def as_dict(self) -> dict[str, Any]:
        """Return it for a report."""
        return {
            "rows_at_once": self.rows,
            "passes": self.passes,
            "checkpointing": self.checkpointing,
            "expected_bytes": self.expected,
            "free_bytes": self.free,
        }

    def __str__(self) -> str:
        extra = ", gradient checkpointing" if self.checkpointing else ""
        batch = f"batch {self.rows} × {self.passes}{extra}"
        if not self.free:
            return batch
        return f"needs about {_gib(self.expected)} of {_gib(self.free)} GiB: {batch}"


@dataclass(frozen=True, slots=True)
class Place:
    """The device a stage runs on, as the arithmetic needs it."""

    device: str
    number: int
    free: int

    @property
    def usable(self) -> int:
        """Bytes that may be counted on."""
        return int(SHARE * self.free) - SPARE_BYTES[self.device]


def check_devices(spec: JobSpec) -> None:
    """Raise InvalidInput unless the devices a job asks for are there."""
    if spec.gpus == 1:
        return
    if ":" in spec.device:
        raise InvalidInput(
            f"training.gpus = {spec.gpus} with model.device = {spec.device!r}: that is one device; "
            'use "cuda", and CUDA_VISIBLE_DEVICES to say which'
        )
    device = choose_device(spec.device)
    there = torch.cuda.device_count() if device == "cuda" else available_cores()
    if device == "mps" or spec.gpus > there:
        raise InvalidInput(f"training.gpus = {spec.gpus}: there are {there} devices ({device})")


def group_rows(spec: JobSpec, stage: Stage) -> int:
    """Return what a batch's rows must be a multiple of, so that the devices share it evenly."""
    return spec.gpus * least_rows(stage)


def find_place(spec: JobSpec) -> Place:
    """Look at the device of a job: the type it computes in, and what is free on it."""
    device = choose_device(spec.device)
    return Place(device, job_dtype(spec.dtype, device).itemsize, free_bytes(device, spec.gpus))


def free_bytes(device: str, gpus: int = 1) -> int:
    """Return what is free on a device: the least of `gpus` cards, or a CPU's share of memory."""
    if device == "cuda":
        return min(torch.cuda.mem_get_info(index)[0] for index in range(gpus))
    return int(psutil.virtual_memory().available) // gpus


def choose_fit(spec: JobSpec, stage: Stage, laid: Laid, shape: Shape, place: Place) -> Fit:
    """Return the quickest way to lay a stage's batches that fits; raises NotEnoughMemory."""
    share = laid.order.batch_size // spec.gpus
    tried = list(_ways(share, least_rows(stage)))
    for way in tried:
        needed = reckon(spec, stage, laid, shape, place, way).total
        if needed <= place.usable:
            return replace(way, expected=needed, free=place.free)
    raise NotEnoughMemory(_refusal(spec, stage, laid, shape, place, tried[-1]))


def least_rows(stage: Stage) -> int:
    """Return how many rows a pass has at least: TRL refuses its KTO with a single one."""
    return 2 if stage.loss == "kto" else 1


def _ways(share: int, least: int) -> Iterator[Fit]:
    """Yield how so many rows can be passed: at once first, in parts, then with checkpointing."""
    parts = [
        rows for rows in range(share, 0, -1) if share % rows == 0 and rows >= min(least, share)
    ]
    for checkpointing in (False, True):
        for rows in parts:
            yield Fit(rows, share // rows, checkpointing)


def reckon(
    spec: JobSpec, stage: Stage, laid: Laid, shape: Shape, place: Place, way: Fit
) -> Estimate:
    """Reckon what a stage takes on each device when it is laid this way."""
    texts = 2 if stage.method == "dpo" else 1
    sizes = [_Size.of(feature) for feature in laid.features]
    parts = [sizes[start : start + way.rows] for start in range(0, len(sizes), way.rows)]
    widest = max(parts, key=lambda part: len(part) * max(one.longest for one in part))
    return estimate(
        shape,
        Work(
            rows=len(widest) * texts,
            tokens=max(one.longest for one in widest),
            labelled=max(
                -(-sum(one.labelled for one in part) // (len(part) * texts)) for part in parts
            ),
            rank=spec.lora_rank,
            number=place.number,
            four_bit=spec.load_in_4bit,
            device=place.device,
            packed=packs(spec),
            checkpointing=way.checkpointing,
            gpus=spec.gpus,
            sharding=spec.sharding,
            reference=0 if stage.method == "sft" else _reference(sizes, texts),
            distinct=max(sum(one.distinct for one in part) for part in parts),
        ),
    )


def packs(spec: JobSpec) -> bool:
    """Whether the quick pass may be taken, as far as that is known before the base is loaded."""
    return not spec.load_in_4bit and spec.sharding == "none" and spec.lora_dropout == 0


def _reference(sizes: Sequence[_Size], texts: int) -> int:
    return min(REFERENCE_TOKENS, max(texts * sum(one.longest for one in sizes), sizes[0].longest))


@dataclass(frozen=True, slots=True)
class _Size:
    """Tokens of an example: the longest text's, those with a label, and each counted once."""

    longest: int
    labelled: int
    distinct: int

    @classmethod
    def of(cls, feature: dict[str, Any]) -> _Size:
        prompt = len(feature["prompt_ids"])
        names = ("completion_ids", "chosen_ids", "rejected_ids")
        said = [len(feature[name]) for name in names if name in feature]
        return cls(prompt + max(said), sum(said), prompt + sum(said))


def _refusal(
    spec: JobSpec, stage: Stage, laid: Laid, shape: Shape, place: Place, least: Fit
) -> str:
    """Say what is needed, what is there, and each change that would make it fit by itself."""
    needed = reckon(spec, stage, laid, shape, place, least).total
    advice = [
        words
        for words, other in _remedies(spec)
        if reckon(other, stage, laid, shape, place, least).total <= place.usable
    ]
    length = _length_that_fits(spec, stage, laid, shape, place, least)
    if length:
        advice.append(f"training.max_length = {length}")
    helps = "; or ".join(advice) if advice else "a smaller base, or a device with more memory"
    return (
        f"stage {stage.method}: {shape.name} needs about {_gib(needed)} GiB even with one example "
        f"at a time and gradient checkpointing, and {place.device} has {_gib(place.free)} GiB free "
        f"({_gib(place.usable)} of them can be counted on); what would help: {helps}"
    )


def _remedies(spec: JobSpec) -> Iterator[tuple[str, JobSpec]]:
    if not spec.load_in_4bit:
        yield "training.load_in_4bit = true", spec.model_copy(update={"load_in_4bit": True})
    if spec.lora_rank > 8:
        yield "training.lora_rank = 8", spec.model_copy(update={"lora_rank": 8})
    for gpus in (2, 4, 8):
        if gpus > spec.gpus or (gpus == spec.gpus and spec.sharding == "none"):
            update = {"gpus": gpus, "sharding": "fsdp"}
            yield (
                f'training.gpus = {gpus} with training.sharding = "fsdp"',
                spec.model_copy(update=update),
            )
            return


def _length_that_fits(
    spec: JobSpec, stage: Stage, laid: Laid, shape: Shape, place: Place, least: Fit
) -> int:
    """Return the greatest length, halved from the longest text's, that would fit; 0 if none."""
    length = max(_Size.of(feature).longest for feature in laid.features)
    while length >= 128:
        length = length // 2 // 64 * 64
        cut = replace(laid, features=[_cut(feature, length) for feature in laid.features])
        if length and reckon(spec, stage, cut, shape, place, least).total <= place.usable:
            return length
    return 0


def _cut(feature: dict[str, Any], length: int) -> dict[str, Any]:
    """Return what a text of at most so many tokens would be: half of it prompt, half reply."""
    return {
        name: value[: length // 2] if name.endswith("_ids") else value
        for name, value in feature.items()
    }


def _gib(size: int) -> str:
    return f"{size / GIB:.1f}"
