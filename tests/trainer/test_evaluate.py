"""The whole evaluation on a tiny real model with base, live and candidate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from core.jobs import ChatMessage, Example, JobSpec, PairExample, VoteExample
from core.report import Report
from tests.families import make_family
from tests.tiny import make_tiny_adapter
from trainer.best_of_n import Teacher
from trainer.draws import Drawer
from trainer.evaluate import Bench, evaluate_job, sample_prompts
from trainer.ranked import Option
from trainer.reward import Reward, Scale
from trainer.sampling import Drawing, choose, draw_replies, draw_together
from trainer.scoring import (
    Scored,
    Systems,
    Texts,
    in_base_type,
    kl_to_base,
    perplexity,
    reply_logprobs,
)
from trainer.style import style_features

END = frozenset({2})


def vote(number: int, *, complete: bool = True) -> VoteExample:
    return VoteExample(
        feedback_ids=[f"f{number}"],
        person=f"p{number % 3}",
        at="2026-01-01T00:00:00Z",
        prompt=[ChatMessage(role="user", content=f"hello {number}")],
        completion="abc" * (1 + number % 4),
        label=number % 2 == 0,
        complete=complete,
    )


@pytest.fixture(scope="module")
def world(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A tiny base, a candidate on it, the directory of a live adapter, and the tokenizer."""
    from peft import PeftModel
    from transformers import AutoTokenizer

    place = tmp_path_factory.mktemp("adapters")
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, make_tiny_adapter(place / "new", tiny_model, seed=1))
    live = make_tiny_adapter(place / "live", tiny_model, seed=2)
    return {
        "model": model.eval(),
        "live": live,
        "tokenizer": AutoTokenizer.from_pretrained(tiny_model),
    }


def spec(world: dict[str, Any], *, live: bool) -> JobSpec:
    return JobSpec(
        run_id="run_1",
        adapter="console@v2",
        base_path="base",
        base_model="tiny",
        base_sha256="0" * 64,
        live_path=str(world["live"]) if live else None,
        recipe="kto",
        why="a test",
        stages=[],
        sample_prompts=4,
        sample_max_tokens=10,
    )


def test_a_whole_evaluation_fills_the_report(world: dict[str, Any]) -> None:
    """Base, live and candidate are measured, progress rises to 1, the model is as it was."""
    held_out: list[Example] = [vote(number) for number in range(6)]
    held_out.append(
        PairExample(
            feedback_ids=["f9"],
            person="p1",
            at="",
            prompt=vote(9).prompt,
            chosen="yes",
            rejected="no",
        )
    )
    seen: list[float] = []
    parts = evaluate_job(
        spec(world, live=True),
        world["model"],
        world["tokenizer"],
        held_out,
        on_progress=lambda fraction, message: seen.append(fraction),
    )
    rest = {"run_id": "r", "adapter": "a", "recipe": "kto", "why": "", "train_counts": {}}
    report = Report(**rest, **parts, eval_counts={}, times_s={}, train_metrics={})  # type: ignore[arg-type]
    assert report.reference == "live"
    assert set(report.systems) == {"base", "live", "candidate"}
    assert report.preference is not None
    assert (report.preference.liked, report.preference.disliked, report.preference.pairs) == (
        3,
        3,
        1,
    )
    assert report.preference.over_live is not None
    assert report.systems["base"].kl_to_base == 0 < report.systems["candidate"].kl_to_base
    assert set(report.samples[0].replies) == {"base", "live", "candidate"}
    assert seen == sorted(seen) and seen[-1] == 1.0
    assert world["model"].active_adapter == "default"
    assert set(world["model"].peft_config) == {"default"}


def test_a_gain_that_is_not_clear_is_heard_again(world: dict[str, Any]) -> None:
    """Every system answers once more, and both replies to a prompt count; one that is clear, or
    none at all, is taken as it is."""
    own = spec(world, live=False)
    texts = Texts(world["tokenizer"], own.max_length)
    prompts = sample_prompts([vote(number) for number in range(6)], 4, 0)
    bench = Bench(own, Systems(world["model"]), texts, prompts)
    for system in bench.systems.names:
        bench.drawn[system] = bench._draw(system, own.seed)
    wide = len(style_features("a", "b", complete=True))
    asked = [ChatMessage(role="user", content="a")]
    said = [(asked, Option("b", complete=True))]
    size = Teacher(Drawer(own, world["model"], texts)).features(said).shape[1]
    heard = set()
    for seed in range(20):
        weights = np.random.default_rng(seed).normal(size=size)
        weights[-wide:] = 0
        reward = Reward(Scale(np.zeros(size), np.ones(size)), weights, 0.0)
        first = bench._over(bench._scores(reward, bench.drawn))["gain"]
        told: list[str] = []
        found = bench.gains(reward, lambda fraction, message, told=told: told.append(message))
        unclear = first.low <= 0 < first.value
        heard.add(unclear)
        assert len(told) == (2 if unclear else 0)
        assert (found["gain"] == first) is not unclear
        assert found["gain"].n == len(prompts)
    assert heard == {True, False}


def test_an_empty_test_set_has_no_preference_figures(world: dict[str, Any]) -> None:
    """Nothing held out: the rest is measured, and the gate will refuse."""
    parts = evaluate_job(spec(world, live=False), world["model"], world["tokenizer"], [])
    assert parts["preference"] is None
    assert parts["reference"] == "base"
    assert parts["systems"]["candidate"].samples == 0


def test_a_system_is_no_distance_from_itself(world: dict[str, Any]) -> None:
    """KL(base || base) is 0, also where it is computed and not known beforehand."""
    systems = Systems(world["model"])
    rows = [Scored([5, 6, 7], [8, 9, 10, 11]), Scored([5], [9, 9])]
    saved = {n: p.detach().clone() for n, p in world["model"].named_parameters() if "lora_B" in n}
    try:
        for name, parameter in world["model"].named_parameters():
            if name in saved:
                parameter.data.zero_()
        assert kl_to_base(systems, "candidate", rows) == pytest.approx(0.0, abs=1e-6)
    finally:
        for name, parameter in world["model"].named_parameters():
            if name in saved:
                parameter.data.copy_(saved[name])
    assert kl_to_base(systems, "candidate", rows) > 0.01


def test_perplexity_of_a_uniform_model_is_the_size_of_its_vocabulary(world: dict[str, Any]) -> None:
    """With a head of zeros every token has probability 1 / vocabulary."""
    systems, causal = Systems(world["model"]), world["model"].get_base_model()
    head = causal.get_output_embeddings().weight
    saved = head.detach().clone()
    head.data.zero_()
    try:
        assert perplexity(systems, "base", [[3, 4, 5, 6]]) == pytest.approx(len(saved))
    finally:
        head.data.copy_(saved)


@pytest.mark.parametrize(
    "others",
    [
        [Scored([5], [9]), Scored([7, 8], [4, 4, 4])],
        [Scored([5, 6, 20, 21], [9]), Scored([5, 6, 8], [4, 4, 4])],
    ],
    ids=["of different prompts", "of a common beginning"],
)
def test_log_probabilities_do_not_depend_on_the_batch(
    world: dict[str, Any], others: list[Scored]
) -> None:
    """Padding changes nothing: rows scored together equal rows scored alone and by hand."""
    systems = Systems(world["model"])
    rows = [Scored([5, 6, 7], [8, 9, 10, 2]), *others]
    together = reply_logprobs(systems, "candidate", rows)
    alone = [reply_logprobs(systems, "candidate", [row])[0] for row in rows]
    with torch.inference_mode():
        logits = world["model"](torch.tensor([[5, 6, 7, 8, 9, 10, 2]])).logits[0]
    by_hand = sum(float(logits[2 + i].log_softmax(-1)[t]) for i, t in enumerate([8, 9, 10, 2]))
    assert together == pytest.approx(alone, abs=1e-4)
    assert together[0] == pytest.approx(by_hand, abs=1e-4)


def test_a_cut_reply_is_scored_without_its_end(world: dict[str, Any]) -> None:
    """Only a reply the model ended has the end token after it."""
    texts = Texts(world["tokenizer"], 100)
    assert texts.reply("ab", complete=True) == [*texts.reply("ab", complete=False), texts.end_id]


PROMPTS = {
    "nothing in common": [[5, 6, 7, 8], [9, 10], [11, 12, 13]],
    "a common beginning": [[5, 6, 7, 8], [5, 6, 9], [5, 6, 7, 8, 9, 10, 11]],
    "one begins the others": [[5, 6], [5, 6, 7], [5, 6, 7, 8, 9]],
    "one of them twice": [[5, 6, 7], [5, 6, 8, 9], [5, 6, 7]],
    "all the same": [[5, 6, 7], [5, 6, 7]],
}


@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=PROMPTS)
def test_greedy_replies_equal_those_of_generate(
    world: dict[str, Any], prompts: list[list[int]]
) -> None:
    """Our loop, in any batch, writes what transformers writes for the prompt alone."""
    systems = Systems(world["model"])
    drawn = draw_replies(systems, "candidate", prompts, Drawing(END, 8))
    for prompt, reply in zip(prompts, drawn, strict=True):
        assert reply.token_ids == _generated(world["model"], prompt, 8)


def test_what_prompts_begin_with_is_passed_over_once(world: dict[str, Any]) -> None:
    """Of three prompts that share nine tokens of ten those are one row, the last three."""
    passed: list[tuple[int, ...]] = []
    embedding = world["model"].get_input_embeddings()
    hook = embedding.register_forward_pre_hook(lambda module, ids: passed.append(ids[0].shape))
    prompts = [[*range(20, 29), last] for last in (5, 6, 7)]
    draw_replies(Systems(world["model"]), "base", prompts, Drawing(frozenset(), 2))
    hook.remove()
    assert passed == [(1, 9), (3, 1), (3, 1)]


@pytest.mark.parametrize("family", ["mistral with a window", "gemma2 with mixed windows"])
def test_a_window_sees_the_same_tokens_whatever_shares_the_batch(family: str) -> None:
    """Prompts begin alike and are longer than the window: padding takes no room in it."""
    model = get_peft_model(make_family(family), LoraConfig(target_modules="all-linear")).eval()
    prompts = [[*range(20, 32), *range(40, 40 + more)] for more in (1, 9, 4)]
    drawn = draw_replies(Systems(model), "candidate", prompts, Drawing(END, 12))
    for prompt, reply in zip(prompts, drawn, strict=True):
        assert reply.token_ids == _generated(model, prompt, 12)


def _generated(model: Any, prompt: list[int], tokens: int) -> list[int]:
    ids = torch.tensor([prompt])
    out = model.generate(input_ids=ids, max_new_tokens=tokens, do_sample=False, eos_token_id=2)
    return [token for token in out[0, len(prompt) :].tolist() if token not in END]


def test_a_draw_depends_on_the_seed_and_not_on_the_batch(world: dict[str, Any]) -> None:
    """Batches of one and of three draw the same replies; another seed draws others."""
    prompts, systems = [[5, 6, 7, 8], [9, 10], [11, 12, 13]], Systems(world["model"])
    whole = draw_replies(systems, "base", prompts, Drawing(END, 8, 1.0, 0.95, seed=1))
    singly = draw_replies(systems, "base", prompts, Drawing(END, 8, 1.0, 0.95, seed=1, batch=1))
    other = draw_replies(systems, "base", prompts, Drawing(END, 8, 1.0, 0.95, seed=2))
    assert whole == singly != other


def test_sets_drawn_together_are_what_each_alone_is(world: dict[str, Any]) -> None:
    """Greedy beside drawn replies, of different lengths at most; a prompt may be in both."""
    systems = Systems(world["model"])
    sets = [
        ([[5, 6, 7, 8], [9, 10], [11, 12, 13]], Drawing(END, 5)),
        ([[9, 10], [5, 6, *range(20, 100)]], Drawing(END, 9, 1.0, 0.95, seed=3)),
        ([[11, 12, 13]], Drawing(frozenset(range(0, 259, 2)), 7, 0.8, 0.9, seed=4)),
    ]
    together = draw_together(systems, "candidate", sets)
    assert together == [draw_replies(systems, "candidate", *one) for one in sets]
    assert [len(reply.token_ids) for reply in together[0]] == [5, 5, 5]


def test_prompts_of_unlike_length_are_passed_over_in_parts(world: dict[str, Any]) -> None:
    """Each is written on as alone, and none is padded to the longest of all."""
    passed: list[tuple[int, ...]] = []
    embedding = world["model"].get_input_embeddings()
    hook = embedding.register_forward_pre_hook(lambda module, ids: passed.append(ids[0].shape))
    systems = Systems(world["model"])
    prompts = [[5, 6, *range(20, 20 + more)] for more in (3, 2, 90, 4, 88)]
    drawn = draw_replies(systems, "candidate", prompts, Drawing(END, 8))
    hook.remove()
    assert passed[:3] == [(1, 3), (3, 3), (2, 89)]
    for prompt, reply in zip(prompts, drawn, strict=True):
        assert reply.token_ids == _generated(world["model"], prompt, 8)


def test_rows_that_end_leave_the_batch_and_the_others_go_on(world: dict[str, Any]) -> None:
    """Every second token ends a reply: rows end at different steps and none is lost."""
    prompts = [[5 + i, 6, 7 + i] for i in range(6)]
    ends = frozenset(range(0, 259, 2))
    drawn = draw_replies(Systems(world["model"]), "base", prompts, Drawing(ends, 12, 1.0, 1.0))
    assert len(drawn) == 6
    assert all(reply.finished for reply in drawn if len(reply.token_ids) < 12)
    assert len({len(reply.token_ids) for reply in drawn}) > 1


def test_progress_is_told_within_a_batch(world: dict[str, Any]) -> None:
    """One batch of three is no silence: each pass moves the fraction, up to the whole."""
    drawing = Drawing(end_ids=frozenset(), max_tokens=6, batch=3)
    told: list[float] = []
    said = {"on_progress": told.append}
    draw_replies(Systems(world["model"]), "base", [[5, 6], [7], [8]], drawing, **said)
    assert told == sorted(told)
    assert len(set(told)) == 6
    assert told[-1] == 1.0


def test_top_p_leaves_out_the_unlikely() -> None:
    """Of probabilities 0.6, 0.3, 0.1 with top_p 0.8 the highest luck draws the second."""
    logits = torch.tensor([[0.6, 0.3, 0.1]]).log()
    told = torch.tensor([1.0]), torch.tensor([0.8])
    assert choose(logits, torch.tensor([0.99]), *told).tolist() == [1]
    assert choose(logits, torch.tensor([0.60]), *told).tolist() == [0]


@pytest.mark.parametrize("top_p", [0.3, 0.95, 1.0])
def test_a_draw_inverts_the_whole_distribution(top_p: float) -> None:
    """Likelier tokens first, whether the first look reaches far enough or only the second does."""
    logits = 3 * torch.randn((40, 500), generator=torch.Generator().manual_seed(1))
    logits[::2] *= 0.1  # nearly flat: 64 tokens are far from enough
    luck = torch.rand(40, generator=torch.Generator().manual_seed(2))
    chosen = choose(logits, luck, torch.ones(40), torch.full((40,), top_p))
    for row, one, token in zip(logits.softmax(-1).tolist(), luck.tolist(), chosen, strict=True):
        ranked = sorted(range(500), key=lambda place: -row[place])
        nucleus, total = [], 0.0
        for place in ranked:
            if total >= top_p:
                break
            nucleus.append(place)
            total += row[place]
        below = sum(row[place] for place in nucleus[: nucleus.index(int(token))])
        assert below / total - 1e-4 <= one <= (below + row[int(token)]) / total + 1e-4


def test_adapters_are_held_in_the_type_of_the_base_for_a_time(tiny_model: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    model = get_peft_model(base, LoraConfig(target_modules="all-linear"))
    own = {name: one for name, one in model.named_parameters() if "lora_" in name}
    before = {name: one.detach().clone() for name, one in own.items()}
    with in_base_type(model):
        assert {one.dtype for one in own.values()} == {torch.bfloat16}
    assert {one.dtype for one in own.values()} == {torch.float32}
    assert all(torch.equal(one, before[name]) for name, one in own.items())


def test_sample_prompts_are_different_and_limited() -> None:
    """The same prompt voted on twice is asked once; the same seed asks the same."""
    held_out: list[Example] = [vote(1), vote(1), vote(2), vote(3)]
    assert len(sample_prompts(held_out, 10, seed=0)) == 3
    assert sample_prompts(held_out, 2, seed=0) == sample_prompts(held_out, 2, seed=0)
