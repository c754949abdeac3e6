"""Whether plain questions are still answered in replies as people get them.

A run's own keep-set has one answer to each question, by the likeliest words, and questions that the
base answers so; some of them turn at any touch, and can only be lost. Here the same questions are
answered a few times as a chat is drawn, by the base and by the cell's adapter with the same luck:
nothing was chosen by these answers, so what is gained shows as well as what is lost.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

from benchmarks.learning.cells import draw
from core.files import write_atomic
from core.jobs import ADAPTER, JobSpec, read_spec
from trainer.keepset import MAX_TOKENS, keep_score, load_keepset

ANSWERED, BASE_ANSWERED = "answered.json", "base-answered.json"
_SEEDS = (77, 78, 79, 80)


def answer(cell: Path) -> None:
    """Ask a finished cell's adapter; idempotent."""
    _answer(cell / ANSWERED, read_spec(cell), cell / ADAPTER)


def answer_base(cell: Path) -> None:
    """Ask the base of any cell; kept beside the cells."""
    _answer(cell.parent / BASE_ANSWERED, read_spec(cell), None)


def read_answered(home: Path, cell: Path) -> tuple[float | None, float | None]:
    """Return the shares of plain questions that the base and the cell's adapter answer well, over
    all questions and draws; None for who was not asked.
    """
    base, own = (_share(path) for path in (home / BASE_ANSWERED, cell / ANSWERED))
    return base, own


def _answer(target: Path, spec: JobSpec, adapter: Path | None) -> None:
    if target.exists():
        return
    asked = [item.prompt for item in load_keepset()]
    said = [
        [one.text for one in draw(spec, adapter, asked, seed=seed, max_tokens=MAX_TOKENS)]
        for seed in _SEEDS
    ]
    write_atomic(target, json.dumps(said))


def _share(path: Path) -> float | None:
    if not path.exists():
        return None
    said: list[list[str]] = json.loads(path.read_text(encoding="utf-8"))
    return fmean(keep_score(load_keepset(), replies) for replies in said)
