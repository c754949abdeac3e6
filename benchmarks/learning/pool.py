"""The base's replies to the communities' prompts: drawn once, kept in a file, shared by all cells.

Kept line by line, so a pool that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.common import default_world, start_engine
from core.generation import BASE, GenerationRequest, Message, Sampling

MAX_TOKENS = 80


@dataclass(frozen=True, slots=True)
class BaseReply:
    """A reply of the base to a prompt; `complete` says that it ended it itself."""

    prompt: str
    draw: int
    text: str
    complete: bool


def _tell(done: int, count: int) -> None:
    if done % 50 == 0 or done == count:
        print(f"the base's replies: {done} of {count}", file=sys.stderr, flush=True)


def load_pool(path: Path, prompts: Sequence[str], draws: int) -> dict[tuple[str, int], BaseReply]:
    """Return the replies by (prompt, draw); what the file lacks is drawn and added to it."""
    pool = _read(path)
    missing = [(p, d) for d in range(draws) for p in prompts if (p, d) not in pool]
    if missing:
        asyncio.run(_draw(path, pool, missing))
    return {(p, d): pool[p, d] for d in range(draws) for p in prompts}


def _read(path: Path) -> dict[tuple[str, int], BaseReply]:
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    replies = [BaseReply(**json.loads(line)) for line in lines]
    return {(reply.prompt, reply.draw): reply for reply in replies}


async def _draw(
    path: Path,
    pool: dict[tuple[str, int], BaseReply],
    missing: Sequence[tuple[str, int]],
) -> None:
    settings, base = default_world()
    engine = await start_engine(settings, base)
    path.parent.mkdir(parents=True, exist_ok=True)
    places = asyncio.Semaphore(settings.serving.max_batch)
    done = 0
    with path.open("a", encoding="utf-8") as file:

        async def ask(number: int, prompt: str, draw: int) -> None:
            nonlocal done
            async with places:
                sampling = Sampling(
                    temperature=settings.chat.temperature,
                    top_p=settings.chat.top_p,
                    max_tokens=MAX_TOKENS,
                    seed=draw * 1_000_000 + number,
                )
                request = GenerationRequest((Message("user", prompt),), BASE, sampling)
                result = await engine.generate(request).result()
            reply = BaseReply(prompt, draw, result.text, result.finish_reason == "stop")
            pool[prompt, draw] = reply
            file.write(json.dumps(asdict(reply)) + "\n")
            file.flush()
            done += 1
            _tell(done, len(missing))

        try:
            await asyncio.gather(*(ask(n, p, d) for n, (p, d) in enumerate(missing)))
        finally:
            await engine.close()
