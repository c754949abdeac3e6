"""Several devices share a batch: the same result, and one that dies leaves nothing behind."""

from __future__ import annotations

import contextlib
import itertools
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from core.jobs import Example, Stage, read_progress
from core.manifest import WEIGHTS
from tests.trainer.rows import APO, DPO, KTO, SFT, job_spec, vote
from tests.trainer.test_job import LONG, QUICK, start, wait_for_step
from tests.trainer.test_train import taste
from trainer import trainers
from trainer.faults import EXIT_LOSS, EXIT_STOPPED
from trainer.fit import Fit
from trainer.job import main
from trainer.model import save_adapter
from trainer.ranks import TRAINED, train_on_ranks
from trainer.snapshot import write_job
from trainer.tokens import make_encoder
from trainer.train import Step, train_stage

STAGES = {"sft": SFT, "kto": KTO, "apo": APO, "dpo": DPO}


def uneven(stage: Stage) -> list[Example]:
    """Examples of unlike lengths and weights, so that a mean of means would show."""
    words = ["yes", "yes yes yes, that is so", "no no"]
    texts: list[Example] = []
    for place, one in enumerate(taste(stage, 16)):
        update: dict[str, Any] = {"weight": 0.5 if place % 3 else 1.0}
        if stage.method != "dpo":
            update["completion"] = words[place % 3]
        texts.append(one.model_copy(update=update))
    return texts


def options(scratch: Path, **more: Any) -> dict[str, Any]:
    steps: list[Step] = []
    return {
        "before": None, "scratch": scratch, "resume": True, "checkpoint_s": 1e9,
        "on_step": steps.append, **more,
    }  # fmt: skip


def alone(base: Path, stage: Stage, scratch: Path, fit: Fit | None = None) -> dict[str, Any]:
    """Train in this process; return the adapter's weights."""
    torch.set_num_threads(1)
    encoder = make_encoder(AutoTokenizer.from_pretrained(base), 256)
    trained = train_stage(
        job_spec(base, stage), stage, uneven(stage), encoder=encoder, fit=fit, **options(scratch)
    )
    (scratch / TRAINED).mkdir()
    save_adapter(trained.model, scratch / TRAINED, "tiny")
    return load_file(scratch / TRAINED / WEIGHTS)


def far(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Return the greatest difference of two adapters' weights."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize("name", STAGES)
def test_a_batch_in_parts_teaches_the_same(name: str, tiny_model: Path, tmp_path: Path) -> None:
    """Two rows twice, layers passed twice, equal four at once up to rounding: 1e-4 after 8 steps.

    A weight moves by up to 3e-3 a step.
    """
    whole = alone(tiny_model, STAGES[name], tmp_path / "a")
    parts = alone(tiny_model, STAGES[name], tmp_path / "b", Fit(2, 2, checkpointing=True))
    assert far(whole, parts) < 1e-4


def test_the_models_own_pass_forgets_its_layers_too(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no quick pass, its trainer really switches checkpointing on."""
    monkeypatch.setattr(trainers, "quick_forward", lambda model, **_: None)
    for wanted in (False, True):
        trained = train_stage(
            job_spec(tiny_model, SFT), SFT, uneven(SFT),
            encoder=make_encoder(AutoTokenizer.from_pretrained(tiny_model), 256),
            fit=Fit(2, 2, checkpointing=wanted), **options(tmp_path / str(wanted)),
        )  # fmt: skip
        causal = trained.model.get_base_model()
        assert any(getattr(m, "gradient_checkpointing", False) for m in causal.modules()) is wanted


@pytest.mark.parametrize("name", ["sft", "kto", "dpo"])
def test_two_processes_teach_the_same_as_one(name: str, tiny_model: Path, tmp_path: Path) -> None:
    """Two rows on each of two equal four on one, up to rounding."""
    whole = alone(tiny_model, STAGES[name], tmp_path / "a")
    spec = job_spec(tiny_model, STAGES[name], gpus=2)
    scratch, steps = tmp_path / "b", list[Step]()
    trained = train_on_ranks(
        spec, STAGES[name], uneven(STAGES[name]), fit=Fit(2),
        **options(scratch, on_step=steps.append),
    )  # fmt: skip
    assert [step.step for step in steps] == list(range(1, 9))
    assert trained.metrics["steps"] == 8
    assert far(whole, load_file(scratch / TRAINED / WEIGHTS)) < 1e-4


@pytest.mark.parametrize("name", ["sft", "dpo"])
def test_a_base_in_two_parts_teaches_the_same(name: str, tiny_model: Path, tmp_path: Path) -> None:
    """FSDP2: each process holds half of every layer; what was trained is put together again.

    The second attempt goes on from the checkpoint that the first wrote at every step.
    """
    stage, scratch = STAGES[name], tmp_path / "b"
    whole = alone(tiny_model, stage, tmp_path / "a")
    spec, steps = job_spec(tiny_model, stage, gpus=2, sharding="fsdp"), list[Step]()

    def ends_early(step: Step) -> None:
        if step.step == 5:
            raise KeyboardInterrupt

    for on_step in (ends_early, steps.append):
        with contextlib.suppress(KeyboardInterrupt):
            train_on_ranks(
                spec, stage, uneven(stage), fit=Fit(2),
                **options(scratch, on_step=on_step, checkpoint_s=0.0),
            )  # fmt: skip
    assert 1 < steps[0].step <= 7
    assert far(whole, load_file(scratch / TRAINED / WEIGHTS)) < 1e-4


def ranks_of(job: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return the processes that train together, once they do."""
    return [
        one
        for one in psutil.Process(job.pid).children(recursive=True)
        if "spawn_main" in " ".join(one.cmdline())
    ]


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=60)
    return not alive


def test_whoever_dies_nobody_is_left_and_the_next_attempt_goes_on(
    tiny_model: Path, tmp_path: Path
) -> None:
    """A rank killed ends the job with a sentence, SIGTERM with 143, and a killed job its ranks."""
    directory = several(tmp_path / "job", tiny_model)
    process = start(directory)
    wait_for_step(directory, 3)
    both = ranks_of(process)
    assert len(both) == 2
    both[1].kill()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert b"ended by SIGKILL without a word" in errors
    assert gone(both)

    process = start(directory, "--resume")
    wait_for_step(directory, highest(directory) + 2)
    both = ranks_of(process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == EXIT_STOPPED
    assert gone(both)

    process = start(directory, "--resume")
    wait_for_step(directory, highest(directory) + 2)
    both = ranks_of(process)
    process.kill()
    process.communicate(timeout=120)
    assert gone(both)
    firsts = [
        line.step
        for before, line in itertools.pairwise(read_progress(directory))
        if line.step and not before.step
    ]
    assert firsts[0] == 1 < firsts[1] < firsts[2]


def several(directory: Path, base: Path) -> Path:
    """Write a long job for two processes."""
    examples: list[Example] = [vote(i % 2 == 0, prompt=f"Q{i}", at=i) for i in range(12)]
    write_job(directory, job_spec(base, LONG, gpus=2, threads=2), examples, examples[:2])
    return directory


def highest(directory: Path) -> int:
    return max(line.step for line in read_progress(directory))


def test_what_a_rank_says_is_what_the_job_says(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A loss that is no number has its exit code and its advice from there too."""
    wild = SFT.model_copy(update={"learning_rate": 1e30, "epochs": 20.0})
    examples: list[Example] = list(taste(SFT))
    write_job(tmp_path / "job", job_spec(tiny_model, wild, gpus=2), examples, examples[:2])
    assert main([str(tmp_path / "job"), *QUICK]) == EXIT_LOSS
    assert "try a lower training.learning_rate" in capsys.readouterr().err
