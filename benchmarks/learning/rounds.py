"""An arm of two rounds: what is learnt from first is live, and the next votes are on what it says.

The first round is a cell of its own (FIRST), as every other; the second is a directory beside it,
`….round`, with what the community goes on with. Of both comes the arm's cell, whose run learns from
all the votes, with the first round's adapter live. Each step is kept, so an interrupted one goes on
where it stopped.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.learning.arms import ARMS, NOISE, World
from benchmarks.learning.cells import ASK, Cell, make_cell, work_cell
from benchmarks.learning.community import (
    Signal,
    cast_votes,
    feedback_rows,
    make_members,
    read_signals,
)
from benchmarks.learning.showing import shown_replies
from benchmarks.learning.tastes import TASTES
from core.files import write_atomic
from core.jobs import ADAPTER, read_spec
from core.settings import Settings

TWO_ROUNDS, FIRST = "rounds-240", "votes-120"
SECOND_VOTES = 120
LIVE = "community@v0"
ROUND = "round.json"
_SECOND_DRAW = 2
"""The draws 0 and 1 are the base's."""


@dataclass(frozen=True, slots=True)
class Round:
    """What a community said in the first round, and what it will ask in the second."""

    cell: Cell
    said: list[Signal]
    prompts: list[str]
    votes: int


def first_of(cell: Cell) -> Cell:
    """Return the cell of the first round."""
    return replace(cell, arm=FIRST)


def round_directory(home: Path, cell: Cell) -> Path:
    """Return where the second round lies."""
    return home / f"{cell.name}.round"


def plan_round(home: Path, cell: Cell, world: World, votes: int = SECOND_VOTES) -> None:
    """Write what the second round starts from; nothing is done where it is there."""
    directory = round_directory(home, cell)
    if (directory / ROUND).exists():
        return
    said = ARMS[FIRST](TASTES[cell.taste], world, cell.seed)
    asked = [reply.prompt for reply in world.shown(cell.seed, draws=(0,))]
    fresh = asked[asked.index(said[-1].reply.prompt) + 1 :]
    directory.mkdir(parents=True, exist_ok=True)
    write_atomic(directory / ROUND, json.dumps(asdict(Round(cell, said, fresh, votes))))


def work_round(directory: Path, settings: Settings) -> None:
    """Hold the second round and work on the arm's cell; the first round's must be done."""
    held = read_round(directory)
    home = directory.parent
    first, target = home / first_of(held.cell).name, home / held.cell.name
    if not target.exists():
        spec = read_spec(first)
        signals = [*held.said, *second_votes(held, directory, first)]
        make_cell(
            target,
            feedback_rows(signals),
            json.loads((first / ASK).read_text(encoding="utf-8")),
            settings,
            base=(spec.base_model, spec.base_sha256, spec.base_path),
            seed=held.cell.seed,
            recipe=held.cell.variant or "auto",
            live=(first / ADAPTER).resolve(),
        )
    work_cell(target)


def second_votes(held: Round, directory: Path, first: Path) -> list[Signal]:
    """Let the same people vote on what the first round's adapter says to prompts they had not
    asked.
    """
    taste, seed = TASTES[held.cell.taste], held.cell.seed
    shown = shown_replies(
        directory, read_spec(first), first / ADAPTER, iter(held.prompts), draw_as=_SECOND_DRAW
    )
    votes = cast_votes(
        lambda member: taste, make_members(seed, NOISE), shown, held.votes, f"{seed}-second"
    )
    return [replace(vote, adapter=LIVE) for vote in votes]


def read_round(directory: Path) -> Round:
    """Read what the second round starts from."""
    row = json.loads((directory / ROUND).read_text(encoding="utf-8"))
    return Round(Cell(**row["cell"]), read_signals(row["said"]), row["prompts"], row["votes"])
