"""Replies that a community is shown, drawn from whatever is live: block after block, as asked for.

Every block is kept in a file, so that what was drawn is never drawn again, and the same community
is shown the same replies whether or not it was interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import count
from pathlib import Path

from benchmarks.learning.cells import draw
from benchmarks.learning.pool import BaseReply
from core.files import write_atomic
from core.jobs import JobSpec

BLOCK = 64


def shown_replies(
    directory: Path, spec: JobSpec, adapter: Path | None, prompts: Iterator[str], *, draw_as: int
) -> Iterator[BaseReply]:
    """Yield the replies of an adapter (None: the base) to prompts, in order.

    `draw_as` stands in the replies as their draw and chooses their luck; blocks lie in `directory`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for number in count():
        block = [prompt for _, prompt in zip(range(BLOCK), prompts, strict=False)]
        if not block:
            return
        path = directory / f"shown-{number:02d}.json"
        if not path.exists():
            write_atomic(path, json.dumps(_drawn(spec, adapter, block, draw_as, number)))
        for row in json.loads(path.read_text(encoding="utf-8")):
            yield BaseReply(**row)


def _drawn(
    spec: JobSpec, adapter: Path | None, prompts: Sequence[str], draw_as: int, number: int
) -> list[dict[str, object]]:
    said = draw(spec, adapter, prompts, seed=1000 * draw_as + number)
    return [asdict(BaseReply(one.prompt, draw_as, one.text, one.complete)) for one in said]
