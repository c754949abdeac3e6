"""What a stage trains on, token by token, and that it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file
from transformers import AutoTokenizer

from core.errors import InvalidInput
from core.jobs import ChatMessage, Example, Stage
from core.manifest import PEFT_CONFIG, WEIGHTS
from tests.trainer.rows import APO, DPO, KTO, SFT, correction, job_spec, pair, vote
from trainer.batches import Row, order_rows
from trainer.model import (
    load_base,
    load_trained,
    lora_config,
    round_adapter,
    save_adapter,
    scale_adapter,
)
from trainer.tokens import Encoder, make_encoder
from trainer.train import Trained, train_stage
from trainer.trainers import side_weights


@pytest.fixture(scope="module")
def encoder(tiny_model: Path) -> Encoder:
    torch.set_num_threads(1)
    return make_encoder(AutoTokenizer.from_pretrained(tiny_model), 256)


def say(*contents: str) -> list[ChatMessage]:
    roles = ["user", "assistant"] * len(contents)
    return [
        ChatMessage(role=role, content=text)  # type: ignore[arg-type]
        for role, text in zip(roles, contents, strict=False)
    ]


def test_tokens_are_those_that_serving_renders(encoder: Encoder) -> None:
    """Prompt and completion equal the template's rendering, the reply, and the end mark."""
    messages = say("Hi", "Yes?", "Two\nlines")
    prompt, completion = encoder.pair(messages, " A reply. ", complete=True)
    rendered = encoder.tokenizer.apply_chat_template(
        [message.model_dump() for message in messages], add_generation_prompt=True, tokenize=False
    )
    ids = encoder.tokenizer(rendered + " A reply. <|im_end|>", add_special_tokens=False)[
        "input_ids"
    ]
    assert prompt + completion == ids
    assert completion[-1] == encoder.end_id == encoder.tokenizer.eos_token_id


def test_a_cut_reply_has_no_end_mark(encoder: Encoder) -> None:
    """Whether disliked or liked, what was cut teaches nothing about ending."""
    assert encoder.completion("cut", complete=False)[-1] != encoder.end_id


def test_old_messages_make_room_and_the_reply_stays_whole(encoder: Encoder) -> None:
    """The oldest messages go first, never the completion; one too long by itself loses its end."""
    messages = say("a" * 150, "b" * 150, "the question")
    prompt, completion = encoder.pair(messages, "c" * 150, complete=True)
    text = encoder.tokenizer.decode(prompt)
    assert len(completion) == 151
    assert len(prompt) + len(completion) <= 256
    assert "the question" in text
    assert "aaa" not in text
    prompt, completion = encoder.pair(messages, "c" * 999, complete=True)
    assert len(prompt) + len(completion) <= 256
    assert completion[-1] != encoder.end_id


@pytest.mark.parametrize(
    ("liked", "total", "size"), [(42, 240, 8), (3, 50, 8), (1, 9, 8), (5, 10, 4)]
)
def test_every_batch_has_both_labels_and_weights_are_kept(
    liked: int, total: int, size: int
) -> None:
    """Rare likes are drawn more often, each copy for its part: a row's weight stays."""
    rows = [Row(i, i < liked, 10 + i % 7, 1.0) for i in range(total)]
    order = order_rows(rows, batch_size=size, epochs=1, seed=3)
    batches = [
        order.rows[start : start + order.batch_size]
        for start in range(0, len(order.rows), order.batch_size)
    ]
    assert all({row.label for row in batch} == {True, False} for batch in batches)
    assert {len(batch) for batch in batches} == {order.batch_size}
    by_row: dict[int, float] = {}
    for row in order.rows:
        by_row[row.index] = by_row.get(row.index, 0.0) + row.weight
    assert by_row == {i: pytest.approx(1.0) for i in range(total)}


def test_half_an_epoch_is_half_the_batches() -> None:
    """`epochs` may be a fraction."""
    rows = [Row(i, i % 2 == 0, 10, 1.0) for i in range(64)]
    assert len(order_rows(rows, batch_size=8, epochs=0.5, seed=0).rows) == 32
    assert len(order_rows(rows, batch_size=8, epochs=1.5, seed=0).rows) == 96


def test_only_the_rarer_side_is_raised() -> None:
    """42 likes and 198 dislikes: 198·7/6 / 42 = 5.5 for the likes; and the other way round."""
    rows = [Row(i, i < 42, 1, 1.0) for i in range(240)]
    assert side_weights(rows) == (pytest.approx(5.5), 1.0)
    assert side_weights(rows[:50]) == (1.0, pytest.approx(42 / 8 * 6 / 7))
    assert side_weights(rows[:78]) == (1.0, 1.0)


def taste(stage: Stage, count: int = 16) -> list[Example]:
    """An easy taste: "yes yes" is liked, "no no" is not."""
    prompts = [f"Question {i}" for i in range(count)]
    if stage.method == "sft":
        return [correction(prompt=prompt, at=i) for i, prompt in enumerate(prompts)]
    if stage.method == "dpo":
        return [pair(prompt=prompt, at=i) for i, prompt in enumerate(prompts)]
    return [vote(i % 2 == 0, prompt=prompt, at=i) for i, prompt in enumerate(prompts)]


def train(
    stage: Stage, examples: list[Example], base: Path, encoder: Encoder, scratch: Path, **more: Any
) -> Trained:
    options: dict[str, Any] = {
        "before": None,
        "resume": False,
        "checkpoint_s": 1e9,
        "on_step": lambda step: None,
    }
    return train_stage(
        job_spec(base, stage),
        stage,
        examples,
        encoder=encoder,
        scratch=scratch,
        **{**options, **more},
    )


@pytest.mark.parametrize("stage", [SFT, KTO, APO, DPO], ids=["sft", "kto", "apo", "dpo"])
def test_each_recipe_learns_an_easy_taste(
    stage: Stage, tiny_model: Path, encoder: Encoder, tmp_path: Path
) -> None:
    """The loss falls from where the base stands, and the margin of a contrast rises above 0."""
    trained = train(stage, taste(stage), tiny_model, encoder, tmp_path)
    figures = trained.metrics
    assert figures["last_loss"] < figures["first_loss"] - 0.05
    if stage.method != "sft":
        start = {"kto": 0.5, "apo_zero_unpaired": 0.5, "sigmoid": 0.6931}[stage.loss]
        assert figures["last_margin"] > 0.2
        assert figures["first_loss"] == pytest.approx(start, abs=0.02)


def test_a_stage_without_data_is_refused(
    tiny_model: Path, encoder: Encoder, tmp_path: Path
) -> None:
    """DPO on votes alone has nothing to learn from and says so."""
    with pytest.raises(InvalidInput, match="stage dpo: none of the 16 examples"):
        train(DPO, taste(APO), tiny_model, encoder, tmp_path)


def test_a_later_stage_is_still_measured_against_the_base(
    tiny_model: Path, encoder: Encoder, tmp_path: Path
) -> None:
    """After SFT moved the adapter, APO's first margin is not 0: its reference is the base."""
    first = train(SFT, taste(SFT), tiny_model, encoder, tmp_path / "a")
    (tmp_path / "sft").mkdir()
    save_adapter(first.model, tmp_path / "sft", "tiny")
    steps: list[Any] = []
    train(
        APO, taste(APO), tiny_model, encoder, tmp_path / "b",
        before=tmp_path / "sft", on_step=steps.append,
    )  # fmt: skip
    assert steps[0].margin > 0.2


def test_a_contrast_ends_once_its_margin_is_wide_enough(
    tiny_model: Path, encoder: Encoder, tmp_path: Path
) -> None:
    """With a bound of a nat the stage ends after fewer steps than without one."""
    stage = DPO.model_copy(update={"epochs": 12, "stop_margin": 1.0})
    steps = []
    for number, one in enumerate((stage, stage.model_copy(update={"stop_margin": None}))):
        trained = train(one, taste(one), tiny_model, encoder, tmp_path / str(number))
        steps.append(trained.metrics["steps"])
    assert steps[0] < steps[1] == 48


def test_an_adapter_of_half_strength_goes_half_of_the_way_back(
    tiny_model: Path, encoder: Encoder, tmp_path: Path
) -> None:
    """At half its strength the logits of a product are half as far from the base's."""
    trained = train(SFT, taste(SFT), tiny_model, encoder, tmp_path)
    layer = next(m for m in trained.model.modules() if hasattr(m, "lora_B"))
    x = torch.randn(3, layer.in_features)
    base = layer.get_base_layer()(x)
    before = layer(x) - base
    scale_adapter(trained.model, 0.5)
    assert torch.allclose(layer(x) - base, before / 2, atol=1e-6)
    assert before.abs().max() > 1e-4


def test_what_a_job_hands_out_is_of_the_base_type(tiny_model: Path, tmp_path: Path) -> None:
    """float32 weights are rounded once, at the end, to what the base is served in."""
    spec = job_spec(tiny_model, SFT, dtype="bfloat16")
    model = get_peft_model(load_base(spec), lora_config(spec))
    source, target = tmp_path / "stage", tmp_path / "adapter"
    for folder in (source, target):
        folder.mkdir()
    save_adapter(model, source, "tiny")
    round_adapter(spec, source, target)
    exact, rounded = load_file(source / WEIGHTS), load_file(target / WEIGHTS)
    assert {tensor.dtype for tensor in exact.values()} == {torch.float32}
    assert all(torch.equal(rounded[name], exact[name].bfloat16()) for name in exact)
    assert (source / PEFT_CONFIG).read_bytes() == (target / PEFT_CONFIG).read_bytes()
    assert load_trained(spec, target).active_adapter == "default"


def test_a_row_without_weight_teaches_nothing(
    tiny_model: Path, encoder: Encoder, tmp_path: Path
) -> None:
    """The weight scales the gradient: opposite tastes of weights 1 and 1e-6 give the heavier's."""
    loud = [vote(i % 2 == 0, prompt=f"Q{i}", at=i) for i in range(16)]
    quiet = [
        vote(i % 2 == 1, prompt=f"R{i}", at=i, weight=1e-6, completion=["yes yes", "no no"][i % 2])
        for i in range(16)
    ]
    steps: list[Any] = []
    stage = APO.model_copy(update={"batch_size": 16, "epochs": 6})
    trained = train(stage, [*loud, *quiet], tiny_model, encoder, tmp_path, on_step=steps.append)
    from trainer.reference import sequence_logps

    texts = [encoder.pair(say("New"), text, complete=True) for text in ("yes yes", "no no")]
    base = sequence_logps(trained.model, texts, 2, forward=None)
    trained.model.disable_adapter = torch.no_grad  # measure with the adapter on
    tuned = sequence_logps(trained.model, texts, 2, forward=None)
    assert tuned[0] - base[0] > tuned[1] - base[1] + 1
