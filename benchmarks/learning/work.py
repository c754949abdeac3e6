"""`python -m benchmarks.learning.work TASK…`: work on cells one after the other, on one thread.

A process of its own, so that two do more side by side than one on two threads; it ends with the
process that started it, or two would work on one cell once the grid is started anew. A task is a
cell's directory, or one of `VERBS` and a directory (`base=DIR`).
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.learning import instructions
from benchmarks.learning.cells import draw_base, work_cell
from benchmarks.learning.person import work_check
from benchmarks.learning.plain import answer, answer_base
from benchmarks.learning.rounds import work_round
from benchmarks.learning.series import work_series
from benchmarks.learning.shared import draw_part, lend_draws
from core.jobs import read_spec
from core.settings import load_settings

_PARENT_POLL_S = 1.0


def choose(cell: Path) -> None:
    """Choose the instructions that the base follows; `cell` is any one."""
    data = instructions.find_data()
    if data is None:
        raise SystemExit(f"{instructions.PROMPTS} or its checkers are gone")
    instructions.choose(cell.parent, read_spec(cell), data)


def _cell(directory: Path) -> None:
    lend_draws(directory)
    work_cell(directory)


VERBS: dict[str, Callable[[Path], None]] = {
    "cell": _cell,
    "part": draw_part,
    "base": draw_base,
    "round": lambda directory: work_round(directory, load_settings()),
    "answer": answer,
    "answer-base": answer_base,
    "choose": choose,
    "follow": lambda cell: instructions.follow(cell.parent, cell),
    "series": lambda directory: work_series(directory, load_settings()),
    "check": lambda directory: work_check(directory, load_settings()),
}


def main() -> None:
    """Do the tasks named."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    for argument in sys.argv[1:]:
        verb, _, directory = argument.rpartition("=")
        VERBS[verb or "cell"](Path(directory))


def _end_with(parent: int) -> None:
    """Stop as any crash would: every step is kept, and gone on with later."""
    while os.getppid() == parent:
        time.sleep(_PARENT_POLL_S)
    os._exit(1)


if __name__ == "__main__":
    main()
