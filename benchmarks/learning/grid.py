"""The grid: which cells there are, the directories they start from, and what is left to do of them.

The figures of finished cells are kept in `figures.json`, those of earlier runs with them as long as
their directories are there; what is reported, wherever it was measured, in docs/learning.json.
Trains nothing itself.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.common import default_world
from benchmarks.learning import instructions
from benchmarks.learning.arms import ARMS, World
from benchmarks.learning.cells import BASE_DRAWN, DRAWN, Cell, is_done, make_cell, read_drawn
from benchmarks.learning.community import feedback_rows
from benchmarks.learning.instructions import CHOSEN, FOLLOWED, Basis, read_followed
from benchmarks.learning.measure import Figures, measure_cell
from benchmarks.learning.plain import ANSWERED, BASE_ANSWERED, read_answered
from benchmarks.learning.pool import load_pool
from benchmarks.learning.prompts import TRAIN, UNSEEN, split_prompts
from benchmarks.learning.queue import Task
from benchmarks.learning.rounds import (
    FIRST,
    ROUND,
    TWO_ROUNDS,
    first_of,
    plan_round,
    round_directory,
)
from benchmarks.learning.shared import part_tasks, plan_parts
from benchmarks.learning.tastes import TASTES
from core.files import write_atomic
from core.jobs import read_spec

ALL_ARMS = (*ARMS, TWO_ROUNDS)
QUICK = (Cell("human", "votes-100", 0), Cell("echo", "votes-100", 0))
QUICK_PROMPTS, QUICK_UNSEEN = 320, 48
FIGURES = "figures.json"
BASIS = "ifeval"

Found = dict[Cell, Figures]


def wanted_cells(
    tastes: Sequence[str], arms: Sequence[str], seeds: Sequence[int], variant: str
) -> list[Cell]:
    """Return every combination, seed by seed; two rounds bring their first round along.

    Raises ValueError for a taste or an arm that does not exist.
    """
    unknown = sorted({*tastes} - {*TASTES} | {*arms} - {*ALL_ARMS})
    if unknown:
        known = ", ".join([*TASTES, *ALL_ARMS])
        raise ValueError(f"unknown: {', '.join(unknown)}; known: {known}")
    if TWO_ROUNDS in arms and FIRST not in arms:
        arms = [FIRST, *arms]
    return [Cell(taste, arm, seed, variant) for seed in seeds for arm in arms for taste in tastes]


def make_cells(cells: Sequence[Cell], home: Path, *, quick: bool) -> None:
    """Write the directories of the cells; the base's replies they need are drawn first."""
    if all(_starting_point(home, cell).exists() for cell in cells):
        return
    settings, base = default_world()
    train, unseen = (QUICK_PROMPTS, QUICK_UNSEEN) if quick else (TRAIN, UNSEEN)
    prompts, asked = split_prompts(train, unseen)
    pool = load_pool(home.parent / "pool.jsonl", prompts, 1 if quick else 2)
    world = World(prompts, pool)
    for cell in cells:
        if cell.arm == TWO_ROUNDS:
            plan_round(home, cell, world)
            continue
        make_cell(
            home / cell.name,
            feedback_rows(ARMS[cell.arm](TASTES[cell.taste], world, cell.seed)),
            asked,
            settings,
            base=(base.name, base.sha256, str(base.path.resolve())),
            seed=cell.seed,
            recipe=cell.variant or "auto",
        )
    specs = [read_spec(home / cell.name) for cell in cells if cell.arm != TWO_ROUNDS]
    ranked = [spec for spec in specs if any(stage.on == "draws" for stage in spec.stages)]
    if ranked and not quick:
        plan_parts(home, prompts, ranked[0])


def tasks_of(cells: Sequence[Cell], home: Path, *, instructed: bool) -> list[Task]:
    """Return all there is to do, in order; with `instructed` adapters are asked IFEval's too."""
    any_cell = home / next(cell for cell in cells if cell.arm != TWO_ROUNDS).name
    drawn = part_tasks(home)
    tasks = [*drawn, *(_task(home, cell, drawn) for cell in cells)]
    tasks.append(Task(f"base={any_cell}", home / BASE_DRAWN))
    tasks.append(Task(f"answer-base={any_cell}", home / BASE_ANSWERED))
    directories = [home / cell.name for cell in cells]
    tasks += [Task(f"answer={one}", one / ANSWERED, (one / DRAWN,)) for one in directories]
    if instructed:
        tasks.append(Task(f"choose={any_cell}", home / CHOSEN))
        for directory in directories:
            needs = (home / CHOSEN, directory / DRAWN)
            tasks.append(Task(f"follow={directory}", directory / FOLLOWED, needs))
    return tasks


def measure_cells(cells: Sequence[Cell], home: Path) -> Found:
    """Return the figures of those cells that are finished."""
    if not (home / BASE_DRAWN).exists():
        return {}
    base = read_drawn(home, BASE_DRAWN)
    return {
        cell: measure_cell(
            home / cell.name,
            TASTES[cell.taste],
            base,
            read_followed(home, home / cell.name),
            read_answered(home, home / cell.name),
        )
        for cell in cells
        if is_done(home / cell.name)
    }


def keep_figures(found: Found, home: Path) -> Found:
    """Add figures to those kept; return all that are kept."""
    before = read_figures(home / FIGURES)
    known = {c: f for c, f in before.items() if (home / c.name).exists()} | found
    write_figures(known, home / FIGURES)
    return known


def write_figures(found: Found, path: Path, basis: Basis | None = None) -> None:
    """Write figures, and what those of IFEval stand on, to a file, whole or not at all."""
    stands_on = {BASIS: asdict(basis)} if basis else {}
    write_atomic(path, json.dumps(as_object(found) | stands_on, indent=1) + "\n")


def read_basis(path: Path) -> Basis | None:
    """Return what the figures of IFEval in a file stand on, if it says."""
    row = json.loads(path.read_text(encoding="utf-8")).get(BASIS) if path.exists() else None
    return Basis(**row) if row else None


def read_figures(path: Path) -> Found:
    """Return the figures kept; those that an older version of this benchmark kept are left out."""
    rows = json.loads(path.read_text(encoding="utf-8"))["cells"] if path.exists() else {}
    known = Figures.__dataclass_fields__.keys() | Cell.__dataclass_fields__.keys()
    return {
        Cell(**_part(row, Cell)): Figures(**_part(row, Figures))
        for row in rows.values()
        if row.keys() == known
    }


def as_object(found: Mapping[Cell, Figures]) -> dict[str, Any]:
    """Return figures as one JSON object, by the names of their cells."""
    return {"cells": {cell.name: asdict(cell) | one.as_dict() for cell, one in found.items()}}


def has_instructions(directory: Path | None) -> bool:
    """Say whether IFEval's prompts and checkers are there; tell if not."""
    there = instructions.find_data(directory) is not None
    if not there:
        print(
            f"no {instructions.PROMPTS} (--data, {instructions.DATA}) or no lm-eval (make "
            "test installs it): whether instructions are followed is left out",
            file=sys.stderr,
        )
    return there


def _part(row: dict[str, Any], of: type[Cell] | type[Figures]) -> dict[str, Any]:
    return {name: row[name] for name in of.__dataclass_fields__}


def _starting_point(home: Path, cell: Cell) -> Path:
    return round_directory(home, cell) / ROUND if cell.arm == TWO_ROUNDS else home / cell.name


def _task(home: Path, cell: Cell, drawn: Sequence[Task]) -> Task:
    if cell.arm != TWO_ROUNDS:
        needs = tuple(task.makes for task in drawn)
        return Task(str(home / cell.name), home / cell.name / DRAWN, needs)
    first = home / first_of(cell).name
    argument = f"round={round_directory(home, cell)}"
    return Task(argument, home / cell.name / DRAWN, (first / DRAWN,))
