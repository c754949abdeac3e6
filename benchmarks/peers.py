"""Every peer on the requests our engine answers, each library in a process of its own.

So the peak memory here is the engine's alone, and no library's threads meet another's. A peer that
cannot run on this machine is noted with the reason and left out of the later rounds.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from benchmarks import peers_llama, peers_torch
from benchmarks.common import random_adapter
from benchmarks.load import COMPARED, MIXED, Cell
from benchmarks.peers_torch import World
from core.generation import GenerationRequest
from serving.base import BUNDLED_NAME

T = TypeVar("T")
SET_ADAPTER_REQUESTS = 6
SLOW_REQUESTS = 16
"""As many of a round's requests as a peer is asked that takes minutes for all of them."""


class Peers:
    """The peers' processes; `samples` holds a figure for each round a peer could run."""

    def __init__(self, world: World) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.samples: dict[str, list[float]] = defaultdict(list)
        self.notes: list[str] = []
        self._has_llama = peers_llama.installed() and world.base.name == BUNDLED_NAME
        if not peers_llama.installed():
            self.notes.append(f"llama.cpp: {peers_llama.NOT_INSTALLED}")
        elif not self._has_llama:
            self.notes.append("llama.cpp: has no 4-bit file of this base model")
        self._world = world
        self._torch = ProcessPoolExecutor(1, mp_context=spawn)
        self._llama = ProcessPoolExecutor(1, mp_context=spawn)
        self._without: set[str] = set()

    async def prepare(self, home: Path) -> Path:
        """Make the random adapters and llama.cpp's copy of one."""
        for seed, path in enumerate(self._world.adapters, start=1):
            await self._in(self._torch, random_adapter, path, self._world.base, path.name, seed)
        return await self._in(
            self._torch,
            peers_llama.write_lora,
            self._world.adapters[0],
            self._world.base,
            home / "adapter.gguf",
        )

    async def run_round(self, turn: int, lora: Path) -> None:
        """Let every peer answer what our engine was asked in this round."""
        mixed, plain, alone = (cell.requests(turn)[:SLOW_REQUESTS] for cell in COMPARED)
        four = World(self._world.base, self._world.adapters[: MIXED.adapters])
        for name, function, requests in (
            ("peft_mixed_16x4", peers_torch.mixed_batch, mixed),
            ("peft_set_adapter", peers_torch.one_by_one, mixed[:SET_ADAPTER_REQUESTS]),
            ("transformers_continuous_16x0", peers_torch.continuous_batching, plain),
        ):
            await self._try(name, self._torch, function, four, requests)
        if self._has_llama:
            one = Cell(1, 1).requests(turn)
            for name, requests, adapter in (
                ("llama_cpp_16", plain, None),
                ("llama_cpp_1", alone, None),
                ("llama_cpp_1_adapter", one, lora),
            ):
                await self._try(name, self._llama, peers_llama.tokens_per_s, requests, adapter)

    async def first_token_s(self, request: GenerationRequest) -> float | None:
        """Return llama.cpp's time to the first piece; None if it is not here."""
        if not self._has_llama:
            return None
        return await self._in(self._llama, peers_llama.first_token_s, request)

    async def read_bandwidth(self) -> float:
        """Return the bytes a second that can be read from memory."""
        return await self._in(self._torch, peers_torch.read_bandwidth)

    def close(self) -> None:
        """End the processes."""
        self._torch.shutdown()
        self._llama.shutdown()

    async def _try(
        self, name: str, pool: ProcessPoolExecutor, function: Callable[..., float], *args: Any
    ) -> None:
        if name in self._without:
            return
        try:
            self.samples[name].append(await self._in(pool, function, *args))
        except Exception as error:  # a peer that cannot run here is a finding, not a failure
            self._without.add(name)
            self.notes.append(f"{name} could not be measured: {error!r}"[:300])

    @staticmethod
    async def _in(pool: ProcessPoolExecutor, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, function, *args)
