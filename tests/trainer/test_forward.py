"""The quick pass through a model: the same figures and the same gradients as its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel
from trl.trainer.utils import add_fused_lm_head

from tests.families import FAMILIES, make_family
from trainer.forward import quick_forward

KNOWN = [name for name in FAMILIES if not name.startswith("gemma2")]
FIGURES = ("log_probs", "entropy", "mean_logits", "is_top1", "label_mask", "loss")


def with_adapter(causal: Any, **options: Any) -> Any:
    """A PEFT model whose adapter does something."""
    add_fused_lm_head(causal, outputs=("log_probs", "entropy", "is_top1", "mean_logits"))
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", **options)
    model = get_peft_model(causal, config)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def batch(width: int = 40) -> dict[str, torch.Tensor]:
    """Five rows of unlike length, two with one prompt, one of them whole inside another."""
    ids = torch.randint(3, 259, (5, width), generator=torch.Generator().manual_seed(2))
    ids[1, :20] = ids[0, :20]
    ids[3, :12] = ids[2, :12]
    ids[:, :4] = ids[0, :4]
    lengths = torch.tensor([width, 31, 25, 12, 7])
    mask = (torch.arange(width) < lengths[:, None]).long()
    prompts = torch.tensor([20, 20, 9, 9, 4])
    labels = ids.masked_fill((mask == 0) | (torch.arange(width) < prompts[:, None]), -100)
    return {"input_ids": ids.where(mask == 1, 2), "attention_mask": mask, "labels": labels}


def figures_and_gradients(model: Any, forward: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """Run a loss that is not linear in the rows' sums, as the trainers' losses are not."""
    model.zero_grad()
    outputs = forward(**batch(), fused_lm_head=True, use_cache=False)
    torch.sigmoid(outputs.log_probs.sum(-1) / 50).sum().backward()
    named = model.named_parameters()
    return outputs, {name: one.grad.clone() for name, one in named if one.grad is not None}


@pytest.mark.parametrize("family", KNOWN)
def test_a_family_trains_exactly_alike(family: str) -> None:
    """Every figure and every gradient equals the model's own, in float32, beyond any window."""
    model = with_adapter(make_family(family))
    own, own_gradients = figures_and_gradients(model, model)
    quick = quick_forward(model)
    assert quick is not None
    ours, gradients = figures_and_gradients(model, quick)
    for name in FIGURES:
        wanted, found = (getattr(outputs, name).float() for outputs in (own, ours))
        labelled = own.label_mask if wanted.dim() else ...
        torch.testing.assert_close(found[labelled], wanted[labelled], rtol=1e-4, atol=1e-4)
    assert gradients.keys() == own_gradients.keys()
    for name, wanted in own_gradients.items():
        torch.testing.assert_close(gradients[name], wanted, rtol=1e-3, atol=1e-5)


def test_the_model_itself_goes_on_as_before() -> None:
    """Joined weights are the same numbers: the model's own forward gives what it gave."""
    model = with_adapter(make_family("qwen2"))
    before = model(**batch(), fused_lm_head=True, use_cache=False).log_probs
    assert quick_forward(model) is not None
    after = model(**batch(), fused_lm_head=True, use_cache=False).log_probs
    torch.testing.assert_close(after, before)


def test_without_its_adapter_it_is_the_base() -> None:
    """Inside `disable_adapter` the quick pass is the base's, as the reference needs it."""
    model = with_adapter(make_family("qwen3"))
    quick = quick_forward(model)
    assert quick is not None
    with torch.no_grad(), model.disable_adapter():
        own = model(**batch(), fused_lm_head=True, use_cache=False).log_probs
        ours = quick(**batch(), fused_lm_head=True, use_cache=False).log_probs
    torch.testing.assert_close(ours, own, rtol=1e-4, atol=1e-4)


def test_what_it_does_not_know_keeps_its_own_forward() -> None:
    """Another family, other attention, dropout, DoRA: no quick pass, and no error."""
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=2))
    config = LoraConfig(r=4, target_modules=["c_fc"], task_type="CAUSAL_LM", fan_in_fan_out=True)
    assert quick_forward(get_peft_model(gpt2, config)) is None
    assert quick_forward(with_adapter(make_family("gemma2 with mixed windows"))) is None
    for options in ({"lora_dropout": 0.1}, {"use_dora": True}, {"lora_bias": True}):
        assert quick_forward(with_adapter(make_family("qwen3"), **options)) is None


@pytest.mark.parametrize("family", ["qwen3", "mistral with a window"])
def test_layers_passed_twice_give_the_same_gradients(family: str) -> None:
    """Keeping only what goes into each layer changes memory, not a single number."""
    model = with_adapter(make_family(family))
    quick = quick_forward(model)
    assert quick is not None
    outputs, gradients = figures_and_gradients(model, quick)
    quick.checkpointing = True
    again, found = figures_and_gradients(model, quick)
    assert torch.equal(again.log_probs, outputs.log_probs)
    assert all(torch.equal(found[name], gradients[name]) for name in gradients)
