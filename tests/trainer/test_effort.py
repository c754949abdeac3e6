"""How much a run draws and ranks follows from its device, unless the job says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.trainer.rows import DPO, job_spec
from trainer.effort import CPU, GPU, effort_of


def test_a_processor_affords_less_than_a_gpu(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` looks at what is there when the job runs, not when it is written."""
    spec = job_spec(tiny_model, DPO).model_copy(update={"device": "auto"})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert effort_of(spec) == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert effort_of(spec) == GPU


def test_what_a_job_asks_for_stands(tiny_model: Path) -> None:
    """Nothing is a number too, and no more is drawn than was asked for."""
    asked = {"ranked_prompts": 8, "draws": 2, "ranked_pairs": 6, "anchors": 0}
    effort = effort_of(job_spec(tiny_model, DPO).model_copy(update=asked))
    assert (effort.prompts, effort.draws, effort.pairs, effort.anchors) == (8, 2, 6, 0)
    assert (effort.times_each(1), effort.asked(100)) == (2, 8)


def test_few_prompts_are_answered_more_often() -> None:
    """Sixteen prompts are answered twelve times each on a CPU, a hundred four times."""
    assert (CPU.times_each(16), CPU.times_each(100)) == (12, 4)


def test_the_more_people_wrote_the_more_is_answered() -> None:
    """Of 240 votes' prompts 96 on a CPU, of 500 votes' half, of very many no more than 384."""
    assert [CPU.asked(prompts) for prompts in (20, 180, 375, 2000)] == [96, 96, 187, 384]
    assert [GPU.asked(prompts) for prompts in (180, 2000)] == [512, 512]
