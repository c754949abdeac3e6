"""The reward model on human labels: rows are read as they are kept, talks stay together."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.learning.human import measure, read_labels
from core.jobs import PairExample, VoteExample
from tests.trainer.rows import DPO, job_spec
from trainer.best_of_n import Teacher
from trainer.draws import Drawer
from trainer.model import load_base, load_tokenizer
from trainer.scoring import Texts


def said(text: str, role: str = "assistant") -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def test_human_labels_are_ordered_out_of_fold_beside_length(
    tiny_model: Path, tmp_path: Path
) -> None:
    """Short replies are liked: the reward finds it, and the longer reply is always wrong."""
    rows = [
        {
            "id": f"talk{n // 2}-{n % 2}",
            "prompt": said(f"Question {n}?", "user"),
            "completion": said("Yes." if n % 2 else "No, and here is a long story about it all."),
            "label": bool(n % 2),
        }
        for n in range(20)
    ]
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    examples = list(read_labels(path))
    assert all(isinstance(one, VoteExample) for one in examples)
    assert {one.person for one in examples} == {f"talk{n}" for n in range(10)}
    spec = job_spec(tiny_model, DPO)
    teacher = Teacher(
        Drawer(spec, load_base(spec).eval(), Texts(load_tokenizer(spec), spec.max_length))
    )
    told: list[float] = []
    own, longer = measure(examples, teacher, told.append)
    assert (own.value, own.n, longer, told[-1]) == (1.0, 20, 0.0, 1.0)


def test_a_pair_belongs_to_its_prompt(tmp_path: Path) -> None:
    """Rows of one prompt are never on both sides of a fold."""
    row = {
        "id": "a-1", "prompt": said("Why?", "user"), "chosen": said("So."), "rejected": said("No."),
    }  # fmt: skip
    path = tmp_path / "labels.jsonl"
    path.write_text(json.dumps(row), encoding="utf-8")
    (only,) = read_labels(path)
    assert isinstance(only, PairExample)
    assert (only.person, only.chosen, only.rejected) == ("Why?", "So.", "No.")
