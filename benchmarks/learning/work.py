"""`python -m benchmarks.learning.work DIR…`: work on cells one after the other, on one thread.

A process of its own, so that two do more side by side than one on two threads.
"""

import os
import sys
from pathlib import Path

from benchmarks.learning.cells import draw_base, work_cell


def main() -> None:
    """Work on the directories named; `base=DIR` draws the base's replies for a cell's prompts."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    for name in sys.argv[1:]:
        if name.startswith("base="):
            draw_base(Path(name.removeprefix("base=")))
        else:
            work_cell(Path(name))


if __name__ == "__main__":
    main()
