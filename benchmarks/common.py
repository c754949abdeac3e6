"""What the benchmarks share: an engine on the default model, random adapters, timed streams."""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.basemodel import BaseModel
from core.garbage import spare_the_loop
from core.generation import Engine, GenerationRequest, Message, Sampling
from core.manifest import MANIFEST, describe_directory
from core.settings import Settings, load_settings

QUESTIONS = (
    "How do I keep a plant alive when I travel?",
    "Why is the sea salty?",
    "What should I cook with rice and eggs?",
    "Tell me about the Moon.",
    "How do I fall asleep faster?",
    "What is a good book for a long train ride?",
    "Why do cats purr?",
    "How do I write a short thank-you note?",
)


@dataclass(frozen=True, slots=True)
class Timed:
    """One streamed reply: when each piece came, seconds after it was asked for."""

    adapter: str
    token_ids: tuple[int, ...]
    arrivals_s: tuple[float, ...]
    tokens: int

    @property
    def gaps_s(self) -> list[float]:
        """Seconds between one piece and the next."""
        return [b - a for a, b in zip(self.arrivals_s, self.arrivals_s[1:], strict=False)]


def arguments(description: str) -> argparse.Namespace:
    """Parse `--json`, `--quick` and `--record`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print one object as the last line")
    parser.add_argument("--quick", action="store_true", help="a shorter run")
    parser.add_argument(
        "--record", action="store_true", help="add the figures to docs/performance.md"
    )
    return parser.parse_args()


def report(options: argparse.Namespace, figures: dict[str, Any]) -> None:
    """Print the figures as a table and, if asked, as one JSON object."""
    for name, value in figures.items():
        shown = f"{value:.3f}" if isinstance(value, float) else value
        print(f"{name:<44} {shown}")
    if options.json:
        print(json.dumps(figures))


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="thumbtune-bench-") as name:
        yield Path(name)


def default_world() -> tuple[Settings, BaseModel]:
    """Return the settings and the prepared base model of this checkout."""
    from serving.base import prepare_base

    settings = load_settings()
    return settings, prepare_base(settings.model, settings.data_dir, lambda _: None)


async def start_engine(settings: Settings, base: BaseModel) -> Engine:
    """Make and start an engine as `thumbtune up` does."""
    from bot.world import make_engine

    engine = make_engine(settings, base)
    await engine.start()
    spare_the_loop()
    return engine


def random_adapter(directory: Path, base: BaseModel, name: str, seed: int) -> Path:
    """Publish a LoRA adapter of rank 16 on every linear layer, with small random weights."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.bfloat16),
        LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        autocast_adapter_dtype=False,  # published adapters are of the base's type
    )
    generator = torch.Generator().manual_seed(seed)
    for key, parameter in model.named_parameters():
        if "lora_B" in key:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data = (0.002 * noise).to(parameter.dtype)
    model.save_pretrained(str(directory))
    (directory / "README.md").unlink(missing_ok=True)
    manifest = describe_directory(
        directory,
        name=name,
        base_model=base.name,
        base_sha256=base.sha256,
        run_id="run_benchmark",
        recipe="random",
        created_at="2026-01-01T00:00:00.000000Z",
    )
    (directory / MANIFEST).write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
    return directory


async def timed_reply(
    engine: Engine, question: str, adapter: str, *, max_tokens: int, seed: int = 0
) -> Timed:
    """Stream one reply and note when each piece came."""
    started = time.perf_counter()
    stream = engine.generate(
        GenerationRequest(
            (Message("user", question),),
            adapter,
            Sampling(temperature=0.7, max_tokens=max_tokens, seed=seed),
        )
    )
    arrivals = [time.perf_counter() - started async for _ in stream]
    result = await stream.result()
    return Timed(result.adapter, result.token_ids, tuple(arrivals), len(result.token_ids))


def peak_memory_mib() -> float:
    """Return the most memory this process has held at once. Linux: from /proc."""
    return memory_mib("VmHWM")


def memory_mib(name: str = "VmRSS") -> float:
    """Return a figure of /proc/self/status in MiB: VmRSS now, VmHWM at its peak."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii"))
    return int(found[1]) / 1024 if found else math.nan


def quantile(values: list[float], q: float) -> float:
    """Return the q-quantile (nearest rank) of a list."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def median(values: list[float]) -> float:
    """Return the median."""
    return statistics.median(values)
