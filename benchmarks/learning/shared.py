"""What the base answers to all the communities' prompts, drawn once for every cell of a grid.

A run of the product draws for itself; here the same base is asked the same prompts dozens of times.
The draws lie in parts beside the cells, so that two processes can draw side by side and an
interrupted grid goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.learning.queue import Task
from core.files import publish_directory
from core.jobs import JOB, TRAIN, ChatMessage, JobSpec, PairExample, read_examples, read_spec
from trainer.best_of_n import DRAWS
from trainer.draws import Drawer, Draws, Floats, prompts_to_ask
from trainer.effort import effort_of
from trainer.job import WORK
from trainer.ranked import Asked, of_each

HOME, PROMPTS = "draws", "prompts.json"
PART = 100
"""Prompts a part."""


def plan_parts(home: Path, prompts: Sequence[str], spec: JobSpec) -> None:
    """Write what each part is to draw; `spec` is that of any cell."""
    for number, start in enumerate(range(0, len(prompts), PART)):
        directory = home / HOME / f"{number:02}"
        if not directory.exists():
            part, own = prompts[start : start + PART], spec.model_copy(update={"seed": number})
            publish_directory(directory, partial(_write_part, prompts=part, spec=own))


def _write_part(directory: Path, *, prompts: Sequence[str], spec: JobSpec) -> None:
    (directory / JOB).write_text(spec.model_dump_json(), encoding="utf-8")
    (directory / PROMPTS).write_text(json.dumps(list(prompts)), encoding="utf-8")


def part_tasks(home: Path) -> list[Task]:
    """Return what is to be drawn."""
    return [Task(f"part={part}", part / DRAWS) for part in sorted((home / HOME).glob("*"))]


def draw_part(directory: Path) -> None:
    """Draw one part, unless it is drawn."""
    from trainer.model import load_base, load_tokenizer
    from trainer.scoring import Texts

    if (directory / DRAWS).exists():
        return
    spec = read_spec(directory)
    prompts = json.loads((directory / PROMPTS).read_text(encoding="utf-8"))
    drawer = Drawer(spec, load_base(spec).eval(), Texts(load_tokenizer(spec), spec.max_length))
    asked = [(ChatMessage(role="user", content=prompt),) for prompt in prompts]
    drawer.draw(asked, lambda done: None).keep(directory / DRAWS)


def lend_draws(cell: Path) -> None:
    """Lay the draws that a cell's job would make into its work directory, if they are all there."""
    spec, target = read_spec(cell), cell / WORK / DRAWS
    if all(stage.on != "draws" for stage in spec.stages) or target.exists():
        return
    asked = prompts_to_ask(spec, list(read_examples(cell / TRAIN)))
    known, anchors = _known(cell.parent / HOME)
    found = [known.get(prompt[-1].content) for prompt in asked]
    lent = [one for one in found if one is not None]
    effort = effort_of(spec)
    if len(lent) < len(found) or effort.times_each(len(found)) != effort.draws:
        return
    target.parent.mkdir(exist_ok=True)
    states = np.concatenate([states for _, states in lent])
    Draws([one for one, _ in lent], states, anchors).keep(target)


def _known(home: Path) -> tuple[dict[str, tuple[Asked, Floats]], list[PairExample]]:
    """Return what is there of each prompt, and one part's anchors."""
    found: dict[str, tuple[Asked, Floats]] = {}
    anchors: list[PairExample] = []
    for directory in sorted(home.glob(f"*/{DRAWS}")):
        draws = Draws.read(directory)
        for one, states in zip(draws.asked, of_each(draws.asked, draws.states), strict=True):
            found[one.prompt[-1].content] = one, states
        anchors = draws.anchors
    return found, anchors
