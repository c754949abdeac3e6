"""What the base answers to all the communities' prompts, drawn once for every cell of a grid.

A run of the product draws for itself; here the same base is asked the same prompts dozens of times.
The draws lie in parts, so that two processes can draw side by side and an interrupted drawing goes
on where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core.jobs import TRAIN, ChatMessage, JobSpec, PairExample, read_examples, read_spec
from trainer.best_of_n import DRAWS
from trainer.draws import Drawer, Draws, Floats, prompts_to_ask, times_each
from trainer.job import WORK
from trainer.model import load_base, load_tokenizer
from trainer.ranked import Asked
from trainer.scoring import Texts

PART = 100
"""Prompts a part."""


def parts(prompts: Sequence[str]) -> list[Sequence[str]]:
    """Return the prompts of each part."""
    return [prompts[start : start + PART] for start in range(0, len(prompts), PART)]


def part_path(home: Path, number: int) -> Path:
    """Return where a part lies."""
    return home / f"{number:02}"


def draw_part(spec: JobSpec, home: Path, number: int, prompts: Sequence[str]) -> None:
    """Draw one part, unless it is there."""
    if part_path(home, number).exists():
        return
    spec = spec.model_copy(update={"seed": number})
    drawer = Drawer(spec, load_base(spec).eval(), Texts(load_tokenizer(spec), spec.max_length))
    asked = [(ChatMessage(role="user", content=prompt),) for prompt in parts(prompts)[number]]
    drawer.draw(asked, lambda done: None).keep(part_path(home, number))


def lend_draws(home: Path, cell: Path) -> None:
    """Lay the draws that a cell's job would make into its work directory, if they are all there."""
    spec, target = read_spec(cell), cell / WORK / DRAWS
    if all(stage.on != "draws" for stage in spec.stages) or target.exists() or not home.exists():
        return
    asked = prompts_to_ask(spec, list(read_examples(cell / TRAIN)))
    known, anchors = _known(home)
    found = [known.get(prompt[-1].content) for prompt in asked]
    lent = [one for one in found if one is not None]
    if len(lent) < len(found) or times_each(spec, len(found)) != spec.draws:
        return
    target.parent.mkdir(exist_ok=True)
    states = np.concatenate([states for _, states in lent])
    Draws([one for one, _ in lent], states, anchors).keep(target)


def _known(home: Path) -> tuple[dict[str, tuple[Asked, Floats]], list[PairExample]]:
    """Return what is there of each prompt, and one part's anchors."""
    found, anchors = {}, []
    for directory in sorted(home.iterdir()):
        draws = Draws.read(directory)
        ends = np.cumsum([len(one.options) for one in draws.asked])
        for one, states in zip(draws.asked, np.split(draws.states, ends[:-1]), strict=True):
            found[one.prompt[-1].content] = one, states
        anchors = draws.anchors
    return found, anchors
