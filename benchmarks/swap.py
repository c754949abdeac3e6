"""What promotions do to sixteen replies being written, and how soon the new version speaks.

Sixteen chats with real contexts go on without a pause, first by themselves, then while adapters are
published, loaded, made to speak and unloaded again, forty times in each of five rounds. A question
asked at the moment of each flip tells how long after "published" the new version's first token
comes. A character may take several tokens (an emoji up to four): the wait for it counts as that
many gaps. The peers swap as their documentation shows, with nothing else going on: what they take
is what every reply would wait.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from benchmarks.chats import exchanges
from benchmarks.common import (
    QUESTIONS,
    Timed,
    arguments,
    default_world,
    median,
    memory_mib,
    quantile,
    random_adapter,
    scratch,
    start_engine,
)
from benchmarks.load import timed
from benchmarks.results import Row, append, print_table
from core.basemodel import BaseModel
from core.generation import BASE, Engine, GenerationRequest, Message, Sampling
from serving.detokenize import Detokenizer

CHATS = 16
ROUNDS, SWAPS = 5, 40
QUICK_ROUNDS, QUICK_SWAPS = 2, 10
MAX_TOKENS = 64
BETWEEN_S = 0.8
VERSIONS = tuple(f"bench@v{number}" for number in range(1, 7))  # gone before its turn is again
PEER_SWAPS = 5
GAP_BOUND, TOKEN_BOUND_MS, MEMORY_BOUND = 1.5, 150.0, 1.05


@dataclass
class Town:
    """The chats, and who speaks to them. Contexts never come twice."""

    engine: Engine
    speaking: str = BASE
    asked: count[int] = field(default_factory=count)
    contexts: list[tuple[Message, ...]] = field(default_factory=list)

    def request(self) -> GenerationRequest:
        """Return the next request of any chat, for whoever speaks now."""
        number = next(self.asked)
        if number >= len(self.contexts):
            drawn = exchanges(1000, seed=len(self.contexts))
            self.contexts += [one.context for one in drawn]
        sampling = Sampling(0.7, 0.95, max_tokens=MAX_TOKENS, seed=number)
        return GenerationRequest(self.contexts[number], self.speaking, sampling)

    async def stream_while(self, work: Any) -> list[Timed]:
        """Keep CHATS replies going until `work` is done, then let them end."""
        done: list[Timed] = []
        task = asyncio.ensure_future(work)

        async def keep_asking() -> None:
            while not task.done():
                done.append(await timed(self.engine, self.request()))

        await asyncio.gather(*(keep_asking() for _ in range(CHATS)))
        await task
        return done


@dataclass
class Swaps:
    """Promotions between published adapters, and what each took, in milliseconds."""

    town: Town
    adapters: dict[str, Path]
    load_ms: list[float] = field(default_factory=list)
    token_ms: list[float] = field(default_factory=list)
    number: count[int] = field(default_factory=count)
    leaving: list[asyncio.Task[None]] = field(default_factory=list)

    async def run(self, swaps: int) -> None:
        """Promote `swaps` times, one version after the other; return once the last old one left."""
        for _ in range(swaps):
            await self._promote(VERSIONS[next(self.number) % len(VERSIONS)])
            await asyncio.sleep(BETWEEN_S)
        await asyncio.gather(*self.leaving)
        self.leaving.clear()

    async def _promote(self, name: str) -> None:
        engine, published = self.town.engine, time.perf_counter()
        await engine.load(name, self.adapters[name])
        await engine.warm(name)
        old, self.town.speaking = self.town.speaking, name
        self.load_ms.append(1e3 * (time.perf_counter() - published))
        asked = GenerationRequest(
            (Message("user", QUESTIONS[len(self.load_ms) % len(QUESTIONS)]),),
            name,
            Sampling(0.7, 0.95, max_tokens=8, seed=len(self.load_ms)),
        )
        waited = time.perf_counter() - published
        first = await timed(engine, asked)
        self.token_ms.append(1e3 * (waited + first.arrivals_s[0]))
        if old != BASE:
            self.leaving.append(asyncio.create_task(engine.unload(old)))  # once its replies end


@dataclass
class Found:
    """All rounds of one run."""

    still: list[list[float]] = field(default_factory=list)
    moved: list[list[float]] = field(default_factory=list)
    replies: int = 0
    memory: list[float] = field(default_factory=list)
    swaps: Swaps | None = None

    def gap_ratio(self) -> float:
        """Return the longest gap with swaps over the p99 without; the median of the rounds."""
        pairs = zip(self.still, self.moved, strict=True)
        return median([max(moved) / quantile(still, 0.99) for still, moved in pairs])


async def measure(home: Path, rounds: int, swaps: int) -> Found:
    """Stream without and with swaps, round by round, in one engine."""
    settings, base = default_world()
    serving = settings.serving.model_copy(update={"max_batch": CHATS + 4})
    adapters = {
        name: await asyncio.to_thread(random_adapter, home / name, base, name, seed)
        for seed, name in enumerate(VERSIONS, start=1)
    }
    engine = await start_engine(settings.model_copy(update={"serving": serving}), base)
    tokenizer: Any = AutoTokenizer.from_pretrained(base.path)
    decode = partial(tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    found, town = Found(), Town(engine)
    found.swaps = Swaps(town, adapters)
    try:
        await town.stream_while(found.swaps.run(2))
        for _ in range(rounds):
            still = await town.stream_while(asyncio.sleep(swaps * BETWEEN_S / 2))
            moved = await town.stream_while(found.swaps.run(swaps))
            found.still.append([gap for one in still for gap in token_gaps_ms(one, decode)])
            found.moved.append([gap for one in moved for gap in token_gaps_ms(one, decode)])
            found.replies += len(still) + len(moved)
            gc.collect()
            found.memory.append(memory_mib())
    finally:
        await engine.close()
    return found


def token_gaps_ms(reply: Timed, decode: Callable[[Sequence[int]], str]) -> list[float]:
    """Return the milliseconds a token between one piece of text and the next."""
    detokenizer = Detokenizer(decode)
    shown = [number for number, token in enumerate(reply.token_ids) if detokenizer.push(token)]
    steps = [after - before for before, after in pairwise(shown)]
    steps += [1] * (len(reply.gaps_s) - len(steps))  # what is left over comes with the end
    return [1e3 * gap / step for gap, step in zip(reply.gaps_s, steps, strict=True)]


def peers(home: Path, base: BaseModel) -> dict[str, float]:
    """Return the median milliseconds from "published" to the first token, for each way to swap."""
    import torch
    from peft import PeftModel
    from peft.utils.hotswap import hotswap_adapter
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(2)
    tokenizer: Any = AutoTokenizer.from_pretrained(base.path)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTIONS[0]}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )

    def load() -> Any:
        plain = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.bfloat16)
        return PeftModel.from_pretrained(plain, home / VERSIONS[0], adapter_name="live")

    model = load()
    names = count()

    def speak(one: Any) -> None:
        one.generate(**asked, max_new_tokens=1, do_sample=False)

    def load_adapter() -> None:
        name = f"v{next(names)}"
        model.load_adapter(home / VERSIONS[1], adapter_name=name)
        model.set_adapter(name)
        speak(model)

    def hotswap() -> None:
        model.set_adapter("live")
        hotswap_adapter(model, str(home / VERSIONS[2]), adapter_name="live")
        speak(model)

    speak(model)
    return {
        "load_adapter": _median_ms(load_adapter),
        "hotswap_adapter": _median_ms(hotswap),
        "reload": _median_ms(lambda: speak(load())),
    }


def _median_ms(call: Callable[[], None]) -> float:
    took = []
    for _ in range(PEER_SWAPS):
        began = time.perf_counter()
        call()
        took.append(1e3 * (time.perf_counter() - began))
    return median(took)


def _report(options: argparse.Namespace, found: Found, others: dict[str, float]) -> None:
    assert found.swaps is not None  # noqa: S101 - set by measure
    still = [gap for gaps in found.still for gap in gaps]
    moved = [gap for gaps in found.moved for gap in gaps]
    token_ms, growth = median(found.swaps.token_ms), found.memory[-1] / found.memory[0]
    rows = [
        Row("gap without swaps, median ms", median(still)),
        Row("gap without swaps, p99 ms", quantile(still, 0.99)),
        Row("gap without swaps, longest ms", max(still)),
        Row("gap with swaps, p99 ms", quantile(moved, 0.99)),
        Row(
            "gap with swaps, longest ms (ratio: to p99 without; the median round)",
            median([max(gaps) for gaps in found.moved]),
            ratio=found.gap_ratio(),
            at_most=GAP_BOUND,
        ),
        Row("published to speaking, median ms", median(found.swaps.load_ms)),
        Row(
            "published to the first token, median ms",
            token_ms,
            ratio=token_ms,
            at_most=TOKEN_BOUND_MS,
        ),
        Row("the same, p95 ms", quantile(found.swaps.token_ms, 0.95)),
        Row("memory after the first round and the last, MiB", found.memory[-1], found.memory[0],
            growth, at_most=MEMORY_BOUND),
        *(
            Row(f"published to the first token, {name} with nothing else going on, ms", token_ms,
                took, token_ms / took)
            for name, took in others.items()
        ),
    ]  # fmt: skip
    print(f"{found.replies} replies, {len(found.swaps.token_ms)} swaps")
    print_table(rows)
    if options.record:
        append("Swaps under sixteen chats", rows)
    if options.json:
        figures = {row.what: row.ours for row in rows} | {
            f"peer_{k}_ms": v for k, v in others.items()
        }
        ratios = {
            "swap_gap_vs_p99": found.gap_ratio(),
            "swap_publish_to_token_ms": token_ms,
            "swap_memory_growth": growth,
        }
        print(json.dumps({**figures, "ratios": ratios}))


def main() -> None:
    """Run and print."""
    options = arguments("Token gaps while adapters are swapped under 16 chats.")
    rounds, swaps = (QUICK_ROUNDS, QUICK_SWAPS) if options.quick else (ROUNDS, SWAPS)
    with scratch() as home:
        found = asyncio.run(measure(home, rounds, swaps))
        others = peers(home, default_world()[1])
    _report(options, found, others)


if __name__ == "__main__":
    main()
