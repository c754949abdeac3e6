"""Write a job directory: the frozen data set of one run. Format: docs/job-directory.md.

The directory appears whole or not at all, and is never changed afterwards by anyone but the job
itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.files import publish_directory, sha256_file, sha256_of_files
from core.jobs import EVAL, JOB, TRAIN, Example, JobSpec, write_examples


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was written: the identity of the data, and the feedback it rests on by its side."""

    dataset_sha256: str
    train_feedback: frozenset[str]
    held_out_feedback: frozenset[str]


def write_job(
    directory: Path, spec: JobSpec, train: Sequence[Example], held_out: Sequence[Example]
) -> Snapshot:
    """Publish `directory` with `job.json`, `train.jsonl` and `eval.jsonl`; FileExistsError if it is
    there."""

    def fill(temporary: Path) -> None:
        write_examples(temporary / TRAIN, train)
        write_examples(temporary / EVAL, held_out)
        (temporary / JOB).write_text(spec.model_dump_json(indent=2) + "\n", encoding="utf-8")

    publish_directory(directory, fill)
    return Snapshot(dataset_sha256(directory), feedback_ids(train), feedback_ids(held_out))


def dataset_sha256(directory: Path) -> str:
    """Return the identity of a job's data: over `train.jsonl` and `eval.jsonl`, not over
    `job.json`."""
    return sha256_of_files({name: sha256_file(directory / name) for name in (TRAIN, EVAL)})


def feedback_ids(examples: Sequence[Example]) -> frozenset[str]:
    """Return the lineage: every feedback row that an example rests on."""
    return frozenset(feedback for example in examples for feedback in example.feedback_ids)
