"""Luck in votes alone: read once, and counted by taste."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.learning.luck import HONEST, SHUFFLED, Reader, table, votes_of
from benchmarks.learning.tastes import TASTES
from tests.benchmarks.small import TASTE, small_base, small_settings, small_world
from tests.trainer.rows import DPO, job_spec
from trainer.best_of_n import Teacher
from trainer.draws import Drawer
from trainer.model import load_base, load_tokenizer
from trainer.scoring import Texts


def test_a_reply_is_read_once_and_as_a_run_reads_it(tiny_model: Path) -> None:
    """Shuffled votes are over the same replies; their features are those of a run's votes."""
    spec = job_spec(Path(small_base(tiny_model)[2]), DPO)
    drawer = Drawer(spec, load_base(spec).eval(), Texts(load_tokenizer(spec), spec.max_length))
    reader = Reader(drawer)
    honest, shuffled = (
        votes_of(arm, TASTE, small_world(), 0, small_settings()) for arm in (HONEST, SHUFFLED)
    )
    said = reader.opinions(honest, print)
    read = len(reader.known)
    reader.opinions(shuffled, print)
    assert len(reader.known) == read <= len(honest)
    as_run = Teacher(drawer).opinions(honest, print)
    assert np.allclose(said.votes, as_run.votes, atol=1e-4)
    assert np.array_equal(said.labels, as_run.labels)
    assert said.of_votes.prompts == as_run.of_votes.prompts


def test_what_passes_is_counted_by_taste() -> None:
    """At the gate's bound, with the smallest p beside."""
    found = {
        f"{taste}-{arm}-s{seed}": 0.004 if arm == HONEST and seed == 0 else 0.2
        for taste in TASTES
        for arm in (HONEST, SHUFFLED)
        for seed in (0, 1)
    }
    honest, shuffled = table(found, (0, 1))[-2:]
    assert "6 of 12 (0.25 to 0.75)" in honest
    assert honest.count(" 1 ") == len(TASTES)
    assert "0 of 12" in shuffled
    assert "0.2000" in shuffled
