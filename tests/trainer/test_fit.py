"""A batch is laid so that it fits, and what cannot fit is refused with what would help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig

from core.errors import InvalidInput
from core.jobs import JobSpec
from tests.trainer.rows import APO, DPO, KTO, SFT, job_spec
from tests.trainer.test_train import taste
from trainer.batches import Order
from trainer.faults import EXIT_MEMORY, diagnose
from trainer.fit import Fit, NotEnoughMemory, Place, check_devices, choose_fit, group_rows, reckon
from trainer.laid import Laid, lay_out
from trainer.memory import GIB, SHAPES, shape_of_config
from trainer.stage import MOST_HALVINGS, foresee, train_into
from trainer.tokens import make_encoder
from trainer.train import train_stage

BIG = shape_of_config(LlamaConfig(**SHAPES["8b"]), "8b")
CARD = Place("cuda", 2, 24 * 10**9 * 97 // 100)


def long_texts(rows: int, tokens: int = 1024, method: str = "sft") -> Laid:
    """Rows as the arithmetic sees them, all as long as they may be."""
    half = [0] * (tokens // 2)
    said = (
        {"chosen_ids": half, "rejected_ids": half} if method == "dpo" else {"completion_ids": half}
    )

    return Laid([{"prompt_ids": half, **said}] * rows, Order([], rows), rows)


def spec_of(**more: Any) -> JobSpec:
    return job_spec(Path("8b"), SFT, lora_rank=16, max_length=1024, device="cuda", **more)


def test_what_fits_at_once_is_passed_at_once() -> None:
    """With room for everything nothing is split and no layer is passed twice."""
    fit = choose_fit(spec_of(), SFT, long_texts(8), BIG, Place("cuda", 2, 140 * GIB))
    assert (fit.rows, fit.passes, fit.checkpointing) == (8, 1, False)


def test_an_8b_base_trains_on_a_card_of_24_gb() -> None:
    """Eight texts of 1024 tokens stay a batch of eight; the fit is told in a sentence."""
    fit = choose_fit(spec_of(), SFT, long_texts(8), BIG, CARD)
    assert fit.rows * fit.passes == 8
    assert fit.passes > 1 or fit.checkpointing
    assert fit.expected <= CARD.usable
    assert str(fit).startswith(f"needs about {fit.expected / GIB:.1f} of 21.7 GiB: batch")
    four_bit = choose_fit(spec_of(load_in_4bit=True), SFT, long_texts(8), BIG, CARD)
    assert four_bit.rows >= fit.rows
    assert four_bit.expected < 16 * GIB


@pytest.mark.parametrize(
    ("tokens", "free_gb", "advice"),
    [(1024, 12, "training.load_in_4bit = true"), (8192, 22, "training.max_length = ")],
)
def test_what_cannot_fit_is_refused_with_what_would_help(
    tokens: int, free_gb: int, advice: str
) -> None:
    """Needed, free and each change that is enough by itself; the exit code is that of memory."""
    place = Place("cuda", 2, free_gb * 10**9)
    with pytest.raises(NotEnoughMemory, match=r"needs about [\d.]+ GiB") as refused:
        choose_fit(spec_of(), SFT, long_texts(2, tokens), BIG, place)
    assert advice in str(refused.value)
    assert diagnose(refused.value)[0] == EXIT_MEMORY


def test_kto_is_never_passed_a_row_at_a_time() -> None:
    """Its KL term wants two, on each of two devices as well."""
    fit = choose_fit(spec_of(), KTO, long_texts(8), BIG, CARD)
    assert fit.rows >= 2
    assert group_rows(spec_of(gpus=2), KTO) == 4


def test_a_pair_counts_its_prompt_once_in_the_quick_pass() -> None:
    """Two replies of 512 to a prompt of 512: 1536 tokens pass, not 2048."""
    way, place = Fit(1), Place("cuda", 2, 80 * GIB)
    pair = reckon(spec_of(), DPO, long_texts(1, method="dpo"), BIG, place, way)
    alone = reckon(spec_of(), SFT, long_texts(1), BIG, place, way)
    assert 1.4 < pair.activations / alone.activations < 1.8


def test_memory_that_runs_out_halves_what_is_passed_at_once() -> None:
    """Down to a row (or KTO's two), then layers are passed twice; then there is nothing left."""
    assert Fit(8).halved(1) == Fit(4, 2)
    assert Fit(3).halved(1) == Fit(1, 3)
    assert Fit(2, 4).halved(2) == Fit(2, 4, checkpointing=True)
    assert Fit(1, 8, checkpointing=True).halved(1) is None


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"gpus": 2, "device": "cuda:1"}, "that is one device"),
        ({"gpus": 4096, "device": "cpu"}, "there are"),
    ],
)
def test_devices_that_are_not_there_are_refused(more: dict[str, Any], sentence: str) -> None:
    """Before anything is loaded, with what was asked for."""
    with pytest.raises(InvalidInput, match=sentence):
        check_devices(job_spec(Path("x"), SFT, **more))


def test_a_job_says_beforehand_what_it_needs(tiny_model: Path) -> None:
    """One sentence for each stage, those on replies to be drawn too."""
    draws = DPO.model_copy(update={"on": "draws"})
    said = list(foresee(job_spec(tiny_model, APO, draws), taste(APO)))
    assert said[0].startswith("stage 1 of 2 (kto) needs about ")
    assert ": batch 4 × 1" in said[1]


def test_a_stage_goes_on_with_less_at_once_after_memory_ran_out(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its checkpoint, with half the rows twice, to the same number of steps."""
    encoder = make_encoder(AutoTokenizer.from_pretrained(tiny_model), 256)
    taken: list[tuple[int, int]] = []

    def short(*given: Any, fit: Fit, on_step: Any, **more: Any) -> Any:
        def step(one: Any) -> None:
            taken.append((fit.rows, one.step))
            if fit.rows > 2 and one.step == 4:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            on_step(one)

        return train_stage(*given, fit=fit, on_step=step, **more)

    monkeypatch.setattr("trainer.stage.train_stage", short)
    lines: list[str] = []
    train_into(
        tmp_path / "1-apo", job_spec(tiny_model, APO), APO, taste(APO), before=None, resume=False,
        checkpoint_s=0, tell=lambda within, **line: lines.append(line.get("message", "")),
    )  # fmt: skip
    assert [step for rows, step in taken if rows == 2] == [4, 5, 6, 7, 8]
    assert any("out of memory; going on from the last checkpoint" in line for line in lines)
    assert (tmp_path / "1-apo" / "adapter_model.safetensors").exists()
    assert MOST_HALVINGS > 1
    assert lay_out(job_spec(tiny_model, APO), APO, taste(APO), encoder).order.batch_size == 4
