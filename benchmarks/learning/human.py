"""`python -m benchmarks.learning.human DIRECTORY`: the reward model on what people really said.

Three sets of human labels (ratings of chat replies, ranked answers, styles written by editors), as
JSON lines: `prompt` with `completion` and `label`, or with `chosen` and `rejected`. Shown is the
share in the right order out of fold, rows of one talk never on both sides, beside "the longer reply
wins".
Nothing is trained but the reward.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.common import default_world
from benchmarks.results import aligned
from core.jobs import ChatMessage, Example, JobSpec, PairExample, VoteExample
from core.report import Interval
from trainer import figures
from trainer.best_of_n import Teacher, foretold
from trainer.draws import Drawer
from trainer.figures import Judged
from trainer.model import load_base, load_tokenizer
from trainer.scoring import Texts

SETS = ("topicalchat_ratings", "oasst_pairs", "personality_style_pairs")
MAX_LENGTH = 512


def main() -> None:
    """Measure every set that is there and print a table."""
    parser = argparse.ArgumentParser(description="The reward model on human labels.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--json", action="store_true", help="print one object as the last line")
    options = parser.parse_args()
    found, teacher = {}, default_teacher()
    for name in SETS:
        path = options.directory / f"{name}.jsonl"
        if not path.exists():
            print(f"{path}: not there, left out", file=sys.stderr)
            continue
        began = time.monotonic()
        found[name] = measure(list(read_labels(path)), teacher, _teller(name))
        print(f"\r{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    head = ("labels", "rows", "reward, out of fold", "95 %", "the longer reply wins")
    body = [
        [name, str(own.n), f"{own.value:.3f}", f"{own.low:.3f} to {own.high:.3f}", f"{long:.3f}"]
        for name, (own, long) in found.items()
    ]
    print("\n".join(aligned(head, body)))
    if options.json:
        print(json.dumps({n: {**own.model_dump(), "longer": lg} for n, (own, lg) in found.items()}))


def _teller(name: str) -> Callable[[float], None]:
    return lambda done: print(f"\r{name}: {done:.0%} read ", end="", file=sys.stderr, flush=True)


def read_labels(path: Path) -> Iterator[Example]:
    """Read a set; the person of a row is the talk it comes from."""
    for line in path.read_text(encoding="utf-8").splitlines():
        row: dict[str, Any] = json.loads(line)
        common: dict[str, Any] = {
            "feedback_ids": [row["id"]],
            "person": row["id"].rpartition("-")[0] or row["id"],
            "at": "",
            "prompt": [ChatMessage(**message) for message in row["prompt"]],
        }
        if "label" in row:
            yield VoteExample(**common, completion=_text(row["completion"]), label=row["label"])
        else:
            texts = {side: _text(row[side]) for side in ("chosen", "rejected")}
            common["person"] = row["prompt"][-1]["content"]
            yield PairExample(**common, **texts)


def _text(messages: list[dict[str, str]]) -> str:
    return messages[-1]["content"]


def default_teacher() -> Teacher:
    """Return the default model, ready to read."""
    settings, base = default_world()
    spec = JobSpec(
        run_id="run_human", adapter="human@v1", base_path=str(base.path), base_model=base.name,
        base_sha256=base.sha256, recipe="bon", why="measured", stages=[], max_length=MAX_LENGTH,
        device=settings.model.device, dtype=settings.model.dtype,
    )  # fmt: skip
    return Teacher(Drawer(spec, load_base(spec).eval(), Texts(load_tokenizer(spec), MAX_LENGTH)))


def measure(
    examples: list[Example], teacher: Teacher, on_progress: Callable[[float], None]
) -> tuple[Interval, float]:
    """Return how well the reward orders the rows it never saw, and how well length does."""
    said = teacher.opinions(examples, on_progress)
    said = replace(
        said,
        of_votes=replace(said.of_votes, prompts=said.of_votes.people),
        of_pairs=replace(said.of_pairs, prompts=said.of_pairs.people),
    )
    judged = foretold(said, 0)
    return figures.person_bootstrap(figures.accuracy, judged, 0), _longer_wins(examples)


def _longer_wins(examples: list[Example]) -> float:
    votes = [one for one in examples if isinstance(one, VoteExample)]
    pairs = [one for one in examples if isinstance(one, PairExample)]
    return figures.accuracy(
        Judged(
            rewards=[float(len(one.completion.split())) for one in votes],
            labels=[one.label for one in votes],
            voters=[one.person for one in votes],
            differences=[
                float(len(one.chosen.split()) - len(one.rejected.split())) for one in pairs
            ],
            choosers=[one.person for one in pairs],
        )
    )


if __name__ == "__main__":
    main()
