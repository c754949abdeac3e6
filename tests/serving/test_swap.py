"""Promotions and rollbacks under load: no reply dropped, none mixed, no long silence."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from serving.engine import LocalEngine
from tests.serving.reference import NAMES, Reference, greedy

REPLIES, SWAPS, TOKENS = 8, 20, 40


async def test_swaps_under_load(
    engine: LocalEngine, adapters: dict[str, Path], reference: Reference
) -> None:
    """Eight chats go on through twenty promotions between three adapters, each reply exact."""
    live = NAMES[0]
    await engine.load(live, adapters[live])
    gaps: dict[bool, list[float]] = {False: [], True: []}
    swapping, over, done = False, False, []

    async def talk(number: int) -> None:
        while not over:
            case = (f"chat {number}", live, TOKENS)
            stream, last = engine.generate(greedy(*case)), None
            async for _ in stream:
                now = time.perf_counter()
                if last is not None:
                    gaps[swapping].append(now - last)
                last = now
            done.append((case, await stream.result()))

    chats = [asyncio.create_task(talk(number)) for number in range(REPLIES)]
    await asyncio.sleep(0.5)
    swapping = True
    for number in range(1, SWAPS + 1):
        new = NAMES[number % 3]
        await engine.load(new, adapters[new])
        await engine.warm(new)
        old, live = live, new
        leaving = asyncio.create_task(engine.unload(old))
        await asyncio.sleep(0.02)
        await leaving
    over = True
    await asyncio.gather(*chats)
    assert {result.adapter for _, result in done} == set(NAMES)
    for case, result in done:
        assert (result.adapter, result.finish_reason in {"stop", "length"}) == (case[1], True)
        assert result.token_ids == reference.tokens(*case)
    longest = {state: max(values) * 1000 for state, values in gaps.items()}
    print(
        f"replies {len(done)}; longest gap idle {longest[False]:.1f} ms, swaps {longest[True]:.1f}"
    )
