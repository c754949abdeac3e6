"""The compiled decoder: the same bits in any company, nothing known is read again, no traps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from core.basemodel import BaseModel
from core.errors import AdapterRefused, ModelError
from core.generation import Sampling
from core.processors import available_cores
from serving.adapters import read_adapter
from serving.batch import Batch, Row
from serving.decoders import Choice, make_batch
from serving.lora import LoadedAdapter, LoraPair, linear_shapes
from serving.native import library
from serving.native.batch import NativeBatch
from serving.native.decoder import NativeDecoder, Quantization, Span
from serving.native.packing import pack_bytes
from serving.native.prefixes import Places
from serving.sampling import Sampler, draw_tokens
from tests.serving.reference import NAMES


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def model(tiny_base: BaseModel, request: pytest.FixtureRequest) -> Any:
    """The tiny model in either type."""
    return AutoModelForCausalLM.from_pretrained(tiny_base.path, dtype=request.param)


QUANTIZED: list[Quantization] = ["none", "auto"]
"""With 8-bit weights where this machine multiplies bytes, and without."""


def loaded_adapter(model: Any, base: BaseModel, name: str, directory: Path) -> LoadedAdapter:
    """An adapter as the engine reads it."""
    return read_adapter(
        directory,
        name=name,
        base_sha256=base.sha256,
        linears=linear_shapes(model),
        dtype=model.dtype,
        device=torch.device("cpu"),
    )


@pytest.mark.parametrize("quantization", QUANTIZED)
def test_a_token_is_the_same_bits_in_any_company(
    model: Any, tiny_base: BaseModel, adapters: dict[str, Path], quantization: Quantization
) -> None:
    """One row alone, token by token; the same in one pass with others, on three threads."""
    decoder = NativeDecoder(model, rows=4, slots=128, quantization=quantization)
    packed = [
        decoder.pack_adapter(loaded_adapter(model, tiny_base, name, adapters[name]))
        for name in NAMES[:2]
    ]
    text = torch.randint(0, decoder.vocab, (50,), generator=torch.Generator().manual_seed(1))
    tokens = text.tolist()
    decoder.library.set_threads(1)
    alone = [decoder.forward([Span(0, i, [t], packed[0])]) for i, t in enumerate(tokens)][-1]
    decoder.library.set_threads(3)
    company = [
        Span(1, 0, tokens[::-1], packed[1]),
        Span(2, 0, tokens, packed[0]),
        Span(3, 0, tokens[:7]),
    ]
    together = decoder.forward(company)
    decoder.library.set_threads(1)
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], alone[0])


def needs_bytes() -> None:
    """Skip where this processor does not multiply bytes."""
    if not library.load_library(torch.bfloat16).quantized():
        pytest.skip("needs a processor with AVX-512 VNNI")


@pytest.mark.parametrize("model", [torch.bfloat16], ids=str, indirect=True)
def test_eight_bits_say_what_sixteen_say(
    model: Any, tiny_base: BaseModel, adapters: dict[str, Path]
) -> None:
    """Base and adapter in 8 bits give nearly the logits that they give in bfloat16."""
    needs_bytes()
    adapter = loaded_adapter(model, tiny_base, NAMES[0], adapters[NAMES[0]])
    found = []
    for quantization in ("none", "int8"):
        decoder = NativeDecoder(model, rows=2, slots=64, quantization=quantization)
        packed = decoder.pack_adapter(adapter)
        spans = [Span(0, 0, range(9, 40)), Span(1, 0, range(40, 9, -1), packed)]
        found.append(decoder.forward(spans))
    error = (found[0] - found[1]).std(dim=-1) / found[0].std(dim=-1)
    assert float(error.max()) < 0.03


def test_weights_on_sixteen_levels_stay_what_they_are() -> None:
    """A matrix from a 4-bit file (low + step · 0…15 in chunks of 32) loses nothing in 8 bits."""
    needs_bytes()
    code = library.load_library(torch.bfloat16)
    levels = torch.randint(0, 16, (16, 2, 32), generator=torch.Generator().manual_seed(4))
    levels[:, :, 0], levels[:, :, 1] = 0, 15
    weight = (levels * 0.125 - 0.5).flatten(1).to(torch.bfloat16)  # exact in bfloat16
    packed, scales = pack_bytes(code, [weight])
    steps = scales.view(2, 2, 16).float()  # (chunks, range and low, outputs)
    by_output = packed.view(16, 16, 4).permute(1, 0, 2).reshape(16, 2, 32).float()
    unpacked = steps[:, 1].T[:, :, None] + steps[:, 0].T[:, :, None] * by_output / 255
    assert torch.equal(unpacked.flatten(1), weight.float())


def test_eight_bits_that_cannot_be_had_are_refused(tiny_base: BaseModel) -> None:
    """Demanded for float32, they are an error that names the setting; left to us, they are not."""
    model = AutoModelForCausalLM.from_pretrained(tiny_base.path, dtype=torch.float32)
    with pytest.raises(ModelError, match=r"serving.quantization is 'int8', but"):
        make_batch(model, Choice(quantization="int8"), rows=2, slots=64)
    assert not NativeDecoder(model, rows=1, slots=64, quantization="auto").quantized


def reading(batch: Any) -> list[Row]:
    """The rows whose prompts the next pass reads on."""
    (step,) = batch.passes()
    before = {row: row.length for row in step.rows}
    step.run()
    return [row for row in step.rows if row.length > before[row] and before[row] < len(row.prompt)]


def test_a_short_question_does_not_wait_for_a_long_story(model: Any) -> None:
    """Beside a reply being written, the prompt with least left is read first."""
    batch = make_batch(model, Choice("compiled"), rows=3, slots=512)
    spoken_to = Row(tuple(range(3, 9)), None, greedy())
    batch.join(spoken_to)
    reading(batch)
    story, question = (
        Row((start, *range(3, end)), None, greedy()) for start, end in ((1, 250), (2, 30))
    )
    batch.join(story)
    batch.join(question)
    assert question in reading(batch) and len(question.drawn) == 1
    assert story.length < 40


def test_a_pass_beside_others_stays_short(model: Any) -> None:
    """However many prompts wait, a writing row's next token waits for some of their tokens only;
    one more prompt is ended if little of it is left.
    """
    batch = make_batch(model, Choice("compiled"), rows=6, slots=512)
    batch.join(Row(tuple(range(3, 9)), None, greedy()))
    reading(batch)
    for start in range(4):
        batch.join(Row((start, *range(3, 300)), None, greedy()))
    batch.join(Row((9, *range(3, 80)), None, greedy()))
    lengths = {row: row.length for row in batch._rows}
    read = [row.length - lengths[row] for row in reading(batch)]
    assert read == [78]
    lengths = {row: row.length for row in batch._rows}
    assert [row.length - lengths[row] for row in reading(batch)] == [61]


def test_what_a_row_no_longer_holds_is_given_back(model: Any) -> None:
    """A short chat in a long chat's row: the memory behind it is free, what it says is the same."""
    decoder = NativeDecoder(model, rows=1, slots=512)
    cache = next(t for t in decoder._kept if t.data_ptr() == decoder.model.cache)
    tokens = list(range(3, 203))
    decoder.forward([Span(0, 0, tokens)])
    wanted = decoder.forward([Span(0, 200, [7])])
    used = int(cache.count_nonzero())
    decoder.trim_row(0, 100)
    assert int(cache.count_nonzero()) < used
    assert torch.equal(decoder.forward([Span(0, 100, [*tokens[100:], 7])]), wanted)


def test_a_lent_core_changes_no_token(model: Any) -> None:
    """Replies go on with a thread less while a core is lent, in the middle of a pass too."""
    batch = make_batch(model, Choice("compiled"), rows=2, slots=128)
    batch.set_threads(available_cores())
    wanted = spoken(batch, tuple(range(3, 40))).drawn
    fresh = make_batch(model, Choice("compiled"), rows=2, slots=128)
    fresh.set_threads(available_cores())
    with fresh.core_lent(), fresh.core_lent():
        assert spoken(fresh, tuple(range(3, 40))).drawn == wanted
    assert spoken(fresh, tuple(range(3, 40))).drawn == wanted
    fresh.set_threads(1)


def test_a_long_story_does_not_wait_for_ever(model: Any) -> None:
    """However many short questions keep coming, a long prompt has its turn."""
    batch = make_batch(model, Choice("compiled"), rows=12, slots=512)
    batch.join(Row(tuple(range(3, 9)), None, greedy()))
    reading(batch)
    story = Row((1, *range(3, 200)), None, greedy())
    batch.join(story)
    for turn in range(60):
        for place in range(4):
            batch.join(Row((turn, place, *range(3, 33)), None, greedy()))
        reading(batch)
        for row in [row for row in batch._rows if row is not story and len(row.drawn) == 1]:
            batch.leave(row)
        if story.drawn:
            return
        for row in [row for row in batch._rows if row is not story and not row.drawn][2:]:
            batch.leave(row)
    pytest.fail(f"{story.length} of {len(story.prompt)} tokens read in 60 passes")


def test_a_chat_that_goes_on_reads_only_what_is_new(model: Any) -> None:
    """The second turn begins after the first; a neighbour's beginning is copied; same tokens."""
    batch = make_batch(model, Choice("compiled"), rows=3, slots=128)
    assert isinstance(batch, NativeBatch)
    opening = tuple(range(10, 40))
    first = spoken(batch, opening)
    longer = (*opening, *first.drawn, 7, 8, 9)
    again = Row(longer, None, greedy())
    batch.join(again)
    assert again.length == len(opening) + len(first.drawn) - 1  # the last drawn was never fed
    beside = Row((*opening, 3, 4), None, greedy())
    batch.join(beside)
    assert beside.length == len(opening)
    for _ in range(8):
        for step in batch.passes():
            step.run()
    fresh = make_batch(model, Choice("compiled"), rows=3, slots=128)
    for row in (again, beside):
        assert row.drawn == spoken(fresh, row.prompt, len(row.drawn)).drawn
        fresh = make_batch(model, Choice("compiled"), rows=3, slots=128)


def greedy() -> Sampler:
    """Draw the likeliest token."""
    return Sampler.seeded(Sampling(temperature=0.0), 0)


def spoken(batch: Any, prompt: tuple[int, ...], tokens: int = 5) -> Row:
    """A row that drew some tokens and left."""
    row = Row(prompt, None, greedy())
    batch.join(row)
    while len(row.drawn) < tokens:
        for step in batch.passes():
            step.run()
    batch.leave(row)
    return row


def test_beginnings_are_kept_apart_by_adapter(model: Any) -> None:
    """Another adapter's states are never taken over, nor those of one that was forgotten."""
    one, other = (LoadedAdapter(name, name, {}, 0) for name in ("one", "other"))
    places = Places(3)
    start = places.take(range(20), one)
    start.place.tokens += range(20)
    places.leave(start.place)
    assert places.take(range(30), other).known == 0
    assert places.take(range(30), None).known == 0
    again = places.take(range(30), one)
    assert (again.known, again.place, again.source) == (20, start.place, None)
    places.leave(again.place)
    places.forget(one)
    assert places.take(range(30), one).known == 0


def test_a_shared_opening_is_copied_from_a_busy_row() -> None:
    """Two chats with one long system prompt: the second copies it, a short one is read anew."""
    places = Places(3)
    first = places.take(range(100), None)
    first.place.tokens += range(100)
    second = places.take([*range(40), -1, -2], None)
    assert (second.known, second.source) == (40, first.place)
    third = places.take([0, 1, 2, -5], None)
    assert (third.known, third.source) == (0, None)


def test_an_adapter_of_something_else_is_refused(model: Any) -> None:
    """What the compiled decoder would leave out is never left out silently."""
    decoder = NativeDecoder(model, rows=2, slots=64)
    pair = LoraPair(torch.zeros(4, 64), torch.zeros(259, 4))
    with pytest.raises(AdapterRefused, match=r"changes lm_head.*serving.decoder"):
        decoder.pack_adapter(LoadedAdapter("odd", "0", {"lm_head": pair}, 0))


def test_what_would_leave_its_memory_is_an_error(model: Any) -> None:
    """A token outside the vocabulary and a position outside the row never reach the C code."""
    decoder = NativeDecoder(model, rows=1, slots=64)
    for span, reason in (
        (Span(0, 0, [259]), "vocabulary of 259"),
        (Span(0, 0, [-1]), "vocabulary"),
        (Span(0, 60, [1] * 5), "the 64 slots"),
    ):
        with pytest.raises(IndexError, match=reason):
            decoder.forward([span])


def test_an_unknown_family_takes_the_generic_path() -> None:
    """What the C code does not know, transformers runs; demanded, it is an error that says why."""
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=2))
    assert isinstance(make_batch(model, Choice("auto"), rows=2, slots=64), Batch)
    with pytest.raises(ModelError, match="does not know GPT2LMHeadModel"):
        make_batch(model, Choice("compiled"), rows=2, slots=64)


def test_a_family_that_changed_is_noticed(tiny_base: BaseModel) -> None:
    """A decoder that differs from transformers is not used."""
    model = AutoModelForCausalLM.from_pretrained(tiny_base.path, dtype=torch.float32)
    model.model.layers[1].mlp.register_forward_hook(lambda module, inputs, output: 1.5 * output)
    with pytest.raises(ModelError, match="differs from transformers"):
        make_batch(model, Choice("compiled"), rows=2, slots=64)


@pytest.mark.parametrize(
    ("compiler", "reason"), [("nothing-of-this-name", "no C compiler"), ("false", "failed")]
)
def test_without_a_compiler_it_says_so(
    compiler: str, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No compiler, or one that fails: the reason, no half-made file."""
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if reason == "no C compiler":
        monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(library.NotAvailable, match=reason):
        library.load_library.__wrapped__(torch.float32)
    assert list((tmp_path / "thumbtune").glob("*")) == []


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.0),
        Sampling(temperature=0.7, top_p=0.95),
        Sampling(temperature=1.3, top_p=1.0),
        Sampling(temperature=1.0, top_p=0.5, top_k=20),
        Sampling(temperature=0.9, top_p=1.0, top_k=3),
        Sampling(temperature=2.0, top_p=0.01),
    ],
    ids=str,
)
def test_it_draws_as_the_generic_path_does(sampling: Sampling, model: Any) -> None:
    """The same seeds give the same tokens, logits that are not finite none."""
    decoder = NativeDecoder(model, rows=1, slots=64)
    logits = 3 * torch.randn(400, 259, generator=torch.Generator().manual_seed(2))
    logits[7, 3], logits[8, 4], logits[9, 5] = torch.nan, torch.inf, -torch.inf

    def samplers() -> list[Sampler]:
        return [Sampler.seeded(sampling, seed) for seed in range(len(logits))]

    drawn = decoder.draw(logits, samplers())
    assert drawn == draw_tokens(logits, samplers())
    assert [i for i, token in enumerate(drawn) if token is None] == [7, 8]
