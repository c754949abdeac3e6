"""A base held in 4 bits trains a float32 adapter; without bitsandbytes it says what is missing."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from core.errors import InvalidInput
from tests.trainer.rows import DPO, SFT, job_spec
from tests.trainer.test_train import taste
from trainer.draws import Drawer
from trainer.fit import Fit
from trainer.model import load_base
from trainer.scoring import Texts
from trainer.strength import choose_strength
from trainer.tokens import make_encoder
from trainer.train import train_stage

THERE = importlib.util.find_spec("bitsandbytes") is not None
needed = pytest.mark.skipif(not THERE, reason="bitsandbytes is not installed (thumbtune[gpu])")


@pytest.mark.skipif(THERE, reason="bitsandbytes is installed")
def test_without_bitsandbytes_it_says_what_to_install(tiny_model: Path) -> None:
    """One sentence, before anything is loaded."""
    with pytest.raises(InvalidInput, match=r"pip install 'thumbtune\[gpu\]'"):
        load_base(job_spec(tiny_model, SFT, load_in_4bit=True))


@needed
@pytest.mark.parametrize("checkpointing", [False, True])
def test_an_adapter_learns_on_a_base_in_4_bits(
    tiny_model: Path, tmp_path: Path, checkpointing: bool
) -> None:
    """The quick pass stands back, the loss falls, and what is trained stays float32."""
    spec = job_spec(tiny_model, DPO, load_in_4bit=True)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    trained = train_stage(
        spec, DPO, taste(DPO), encoder=make_encoder(tokenizer, 256), before=None, scratch=tmp_path,
        resume=False, checkpoint_s=1e9, on_step=lambda step: None, fit=Fit(2, 2, checkpointing),
    )  # fmt: skip
    assert trained.metrics["last_loss"] < trained.metrics["first_loss"] - 0.05
    weights = {one.dtype for one in trained.model.parameters() if one.requires_grad}
    assert weights == {torch.float32}
    assert choose_strength(trained.model, Texts(tokenizer, 256)).asked >= 0


@needed
def test_a_base_in_4_bits_draws_replies_and_takes_a_quarter(tiny_model: Path) -> None:
    """Its projections are bytes, two weights in each; what draws replies asks for nothing else."""
    spec = job_spec(tiny_model, SFT, load_in_4bit=True, sample_max_tokens=4)
    causal: Any = load_base(spec)
    weight = causal.model.layers[0].mlp.down_proj.weight
    assert weight.dtype == torch.uint8
    assert weight.numel() == 64 * 128 // 2
    assert weight.quant_state.nested
    texts = Texts(AutoTokenizer.from_pretrained(tiny_model), 256)
    prompts = [example.prompt for example in taste(SFT, 3)]
    assert len(Drawer(spec, causal, texts).say(prompts, 0.0, 1.0)) == 3
