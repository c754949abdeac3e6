"""The base's draws are made once for a grid and lent to each cell."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.learning.arms import ARMS
from benchmarks.learning.cells import make_cell
from benchmarks.learning.community import feedback_rows
from benchmarks.learning.shared import HOME, draw_part, lend_draws, part_tasks, plan_parts
from benchmarks.learning.tastes import TASTES
from core.jobs import JOB, TRAIN, read_examples, read_spec
from tests.benchmarks.small import PROMPTS, TASTE, UNSEEN, small_base, small_settings, small_world
from trainer.best_of_n import DRAWS
from trainer.draws import Draws, prompts_to_ask
from trainer.job import WORK

SMALL = {"ranked_prompts": 4, "draws": 2, "anchors": 2, "sample_max_tokens": 6}


def made_cell(home: Path, model: Path) -> Path:
    """A cell that ranks draws, few and short ones."""
    cell = home / "cell"
    signals = ARMS["votes-50"](TASTES[TASTE], small_world(), 0)
    own = {"base": small_base(model), "seed": 0, "recipe": "bon"}
    make_cell(cell, feedback_rows(signals), UNSEEN, small_settings(), **own)
    spec = read_spec(cell).model_copy(update=SMALL)
    (cell / JOB).write_text(spec.model_dump_json(), encoding="utf-8")
    return cell


def test_a_cell_is_lent_the_draws_of_its_own_prompts(tiny_model: Path, tmp_path: Path) -> None:
    """Text and states are those of the parts; until all are drawn nothing is lent."""
    cell = made_cell(tmp_path, tiny_model)
    spec = read_spec(cell)
    wanted = [p[-1].content for p in prompts_to_ask(spec, list(read_examples(cell / TRAIN)))]
    plan_parts(tmp_path, [*wanted, *(p for p in PROMPTS if p not in wanted)][:101], spec)
    first, second = sorted((tmp_path / HOME).iterdir())
    draw_part(second)
    lend_draws(cell)
    assert not (cell / WORK / DRAWS).exists()
    draw_part(first)
    assert all(task.makes.exists() for task in part_tasks(tmp_path))
    lend_draws(cell)
    lent, part = Draws.read(cell / WORK / DRAWS), Draws.read(first / DRAWS)
    assert [one.prompt[-1].content for one in lent.asked] == wanted
    assert lent.asked == part.asked[: len(wanted)]
    assert np.array_equal(lent.states, part.states[: 2 * len(wanted)])
    assert lent.anchors
