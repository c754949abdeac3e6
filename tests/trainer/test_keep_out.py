"""An adapter kept out of what plain questions use: it learns, and says nothing there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import get_peft_model

from core.jobs import ChatMessage, PairExample, Stage
from tests.trainer.rows import DPO, job_spec
from trainer.keep_out import Directions, KeepOut, own_directions, plain_directions
from trainer.model import load_base, load_tokenizer, lora_config
from trainer.scoring import Scored
from trainer.tokens import make_encoder
from trainer.train import Trained, train_stage

PLAIN = ("What is 2 plus 2?", "Who painted it?", "Name a colour.")


def pair(prompt: str, chosen: str, rejected: str) -> PairExample:
    """Two replies to a prompt."""
    return PairExample(
        feedback_ids=[],
        person="p",
        at="",
        prompt=[ChatMessage(role="user", content=prompt)],
        chosen=chosen,
        rejected=rejected,
    )


def rows(count: int = 3) -> list[Scored]:
    """Texts of a few tokens."""
    return [Scored([5 + place, 9, 12], [7, 3 + place]) for place in range(count)]


def directions(tiny_model: Path, share: float) -> tuple[torch.nn.Module, Directions]:
    """A tiny base with a fresh adapter, and what plain texts use of it."""
    spec = job_spec(tiny_model, DPO)
    model = get_peft_model(load_base(spec), lora_config(spec))
    return model, plain_directions(model, rows(), share, seed=0)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_basis_holds_the_share_it_is_asked_for(tiny_model: Path, share: float) -> None:
    """Orthonormal, one for each layer with a LoRA, and larger for a larger share."""
    _, found = directions(tiny_model, share)
    _, all_of_it = directions(tiny_model, 0.999)
    for name, basis in found.items():
        assert torch.allclose(basis.T @ basis, torch.eye(basis.shape[1]), atol=1e-4), name
        assert basis.shape[1] < all_of_it[name].shape[1]
    assert {"q_proj", "o_proj", "down_proj"} <= {name.rpartition(".")[2] for name in found}


def test_an_adapter_starts_in_what_its_own_texts_use_of_the_rest(tiny_model: Path) -> None:
    """Orthonormal, at right angles to what is closed, and more of the texts lies along them than
    along directions drawn by luck.
    """
    model, closed = directions(tiny_model, 0.5)
    own = [Scored([30 + place, 31, 8], [40 + place, 41]) for place in range(4)]
    start = own_directions(model, own, closed, rank=4, seed=0)
    seen = own_directions(model, own, closed, rank=99, seed=0)  # all that the texts use
    for name, first in start.items():
        assert torch.allclose(first.T @ first, torch.eye(first.shape[1]), atol=1e-3), name
        assert (first.T @ closed[name]).abs().max() < 1e-3
        luck = torch.linalg.qr(torch.randn(len(first), first.shape[1]))[0]
        assert (seen[name].T @ first).norm() > 1.2 * (seen[name].T @ luck).norm()
    KeepOut(model, closed, start)
    name, first = next(iter(start.items()))
    weight = dict(model.named_modules())[name].lora_A["default"].weight
    along = weight[: first.shape[1]] @ first
    assert torch.allclose(along, 3**-0.5 * torch.eye(first.shape[1]), atol=1e-3)
    assert (weight @ closed[name]).abs().max() < 1e-4


@pytest.mark.parametrize("fresh", [True, False])
def test_what_is_closed_is_taken_out_of_gradients_and_steps(
    tiny_model: Path, *, fresh: bool
) -> None:
    """What a step puts there is taken out; what a stage before had put there stays as it was."""
    model, closed = directions(tiny_model, 0.9)
    name, basis = next(iter(closed.items()))
    weight = dict(model.named_modules())[name].lora_A["default"].weight
    before = (weight @ basis).detach().clone()
    held = KeepOut(
        model, closed, {key: one[:, :0] for key, one in closed.items()} if fresh else None
    )
    kept = torch.zeros_like(before) if fresh else before
    assert torch.allclose(weight @ basis, kept, atol=1e-5)
    weight.grad = torch.ones_like(weight)
    held.on_pre_optimizer_step(None, None, None)
    assert (weight.grad @ basis).abs().max() < 1e-4
    assert weight.grad.abs().max() > 0.01
    weight.data.add_(1.0)
    held.on_step_end(None, None, None)
    assert torch.allclose(weight @ basis, kept, atol=1e-4)


def test_a_stage_that_is_kept_out_learns_more_for_what_it_costs(
    tiny_model: Path, tmp_path: Path
) -> None:
    """For each nat of margin it moves a plain question by less than half of what it would."""
    free, kept = (train(tiny_model, tmp_path / str(share), share) for share in (None, 0.97))
    costs = [change(one, tiny_model) / one.metrics["last_margin"] for one in (free, kept)]
    assert kept.metrics["last_margin"] > 0
    assert costs[1] < 0.5 * costs[0]


def train(tiny_model: Path, scratch: Path, share: float | None) -> Trained:
    """One DPO stage on a few pairs."""
    stage = Stage(
        method="dpo",
        loss="sigmoid",
        learning_rate=5e-3,
        epochs=4.0,
        batch_size=2,
        keep_out=share,
    )
    spec = job_spec(tiny_model, stage)
    return train_stage(
        spec,
        stage,
        [pair(f"Tell me about {n}", f"Yes {n}!", f"No, {n} is bad.") for n in range(6)],
        plain=[pair(prompt, "Four.", "Five.") for prompt in PLAIN],
        encoder=make_encoder(load_tokenizer(spec), spec.max_length),
        before=None,
        scratch=scratch,
        resume=False,
        checkpoint_s=999,
        on_step=lambda step: None,
    )


def change(trained: Trained, tiny_model: Path) -> float:
    """How far the adapter moves the logits of a plain question."""
    encoder = make_encoder(load_tokenizer(job_spec(tiny_model, DPO)), 256)
    ids = torch.tensor([encoder.prompt([ChatMessage(role="user", content=PLAIN[0])], room=99)])
    model = trained.model.eval()
    with torch.inference_mode():
        own = model(input_ids=ids).logits
        with model.disable_adapter():
            base = model(input_ids=ids).logits
    return float((own - base).abs().mean())
