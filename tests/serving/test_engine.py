"""The engine: exact in mixed batches, streaming, bounded, cancellable, never hanging."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from core.basemodel import BaseModel
from core.errors import (
    AdapterRefused,
    AdaptersFull,
    EngineBusy,
    InvalidInput,
    UnknownAdapter,
)
from core.generation import BASE, GenerationRequest, GenerationResult, Message, Sampling
from core.sections import ServingSettings
from serving.engine import LocalEngine
from tests.serving.reference import NAMES, Reference, answer, chat, greedy
from tests.tiny import publish_tiny_adapter

WORDS = ("hi", "what is a cat, and why?", "tell me of the long night in the north " * 3, "né 🙂")
SAMPLED = Sampling(temperature=1.0, top_p=0.9, max_tokens=24, seed=7)


# -- exactness


def test_the_adapters_differ(reference: Reference) -> None:
    """Each adapter and the base write something else, so a mix-up would show."""
    replies = {reference.tokens(WORDS[0], name) for name in (BASE, *NAMES)}
    assert len(replies) == 4


async def test_mixed_batch_equals_peft_alone(loaded: LocalEngine, reference: Reference) -> None:
    """Replies on the base and three adapters in one batch are PEFT's, token for token."""
    cases = [(WORDS[i % 4], name) for i, name in enumerate((BASE, *NAMES) * 2)]
    streams = [loaded.generate(greedy(text, name)) for text, name in cases]
    results = [await stream.result() for stream in streams]
    assert [r.token_ids for r in results] == [reference.tokens(*case) for case in cases]
    assert [r.adapter for r in results] == [name for _, name in cases]


async def test_joining_and_leaving_changes_nothing(
    loaded: LocalEngine, reference: Reference
) -> None:
    """Replies that join mid-way, of differing prompt and reply lengths, are exact too."""
    cases = [
        (WORDS[i % 4] + str(i), name, 6 + 5 * (i % 4)) for i, name in enumerate((BASE, *NAMES) * 6)
    ]
    places = asyncio.Semaphore(12)

    async def later(number: int) -> GenerationResult:
        await asyncio.sleep(0.004 * number)
        async with places:
            return await answer(loaded, greedy(*cases[number]))

    results = await asyncio.gather(*(later(number) for number in range(len(cases))))
    assert [r.token_ids for r in results] == [reference.tokens(*case) for case in cases]


async def test_long_prompts_are_read_in_chunks_exactly(
    loaded: LocalEngine, reference: Reference
) -> None:
    """Prompts longer than a chunk, joining a running reply, give PEFT's tokens."""
    first = loaded.generate(greedy("go on", NAMES[0], 60))
    await anext(aiter(first))
    long = [("x" * 380, NAMES[1]), ("lorem ipsum " * 20, NAMES[2]), ("short", BASE)]
    streams = [loaded.generate(greedy(text, name)) for text, name in long]
    results = [await stream.result() for stream in streams]
    assert [r.token_ids for r in results] == [reference.tokens(*case) for case in long]
    assert (await first.result()).token_ids == reference.tokens("go on", NAMES[0], 60)


async def test_exact_before_during_and_after_a_swap(
    engine: LocalEngine, adapters: dict[str, Path], reference: Reference
) -> None:
    """A reply keeps its adapter to the last token while others come and its own leaves."""
    old, new = NAMES[0], NAMES[1]
    await engine.load(old, adapters[old])
    running = engine.generate(greedy("tell", old, 80))
    await anext(aiter(running))
    await engine.load(new, adapters[new])
    await engine.warm(new)
    leaving = asyncio.create_task(engine.unload(old))
    fresh = await answer(engine, greedy("tell", new, 30))
    assert fresh.token_ids == reference.tokens("tell", new, 30)
    assert (await running.result()).token_ids == reference.tokens("tell", old, 80)
    await leaving
    assert engine.stats().adapters == (new,)
    assert (await answer(engine, greedy("tell"))).token_ids == reference.tokens("tell")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
async def test_other_dtypes_run(
    tiny_base: BaseModel, adapters: dict[str, Path], dtype: str
) -> None:
    """The engine runs in half precision, with an adapter, to the asked length or a proper end."""
    settings = ServingSettings(max_batch=2, max_context_tokens=256)
    engine = LocalEngine(tiny_base, settings=settings, dtype=dtype, device="cpu", threads=1)
    await engine.start()
    await engine.load(NAMES[0], adapters[NAMES[0]])
    result = await answer(engine, greedy("hi", NAMES[0]))
    assert result.finish_reason in {"stop", "length"} and result.token_ids
    await engine.close()


# -- streams


async def test_pieces_join_to_the_text(loaded: LocalEngine) -> None:
    """What is streamed, joined, is the result's text."""
    stream = loaded.generate(GenerationRequest(chat("hi"), NAMES[0], SAMPLED))
    pieces = [piece async for piece in stream]
    result = await stream.result()
    assert "".join(pieces) == result.text and result.first_token_s is not None
    assert [piece async for piece in stream] == pieces


async def test_cancel_keeps_the_text_so_far(engine: LocalEngine) -> None:
    """A cancelled reply ends soon, with the reason and what was written."""
    stream = engine.generate(greedy("hi", tokens=400))
    await anext(aiter(stream))
    stream.cancel()
    stream.cancel()
    result = await stream.result()
    assert result.finish_reason == "cancelled" and 0 < len(result.token_ids) < 400
    assert engine.stats().active == 0


async def test_deadline_ends_a_reply(engine: LocalEngine) -> None:
    """A reply that runs past its deadline ends with the reason `deadline`."""
    late = replace(greedy("hi", tokens=400), deadline_s=0.02)
    assert (await answer(engine, late)).finish_reason == "deadline"


async def test_deadline_counts_the_wait(tiny_base: BaseModel) -> None:
    """A reply that never got a place ends at its deadline with no text."""
    settings = ServingSettings(max_batch=1, max_queue=2, max_context_tokens=512)
    engine = LocalEngine(tiny_base, settings=settings, dtype="float32", device="cpu", threads=1)
    await engine.start()
    running = engine.generate(greedy("hi", tokens=300))
    late = await answer(engine, replace(greedy("you", tokens=4), deadline_s=0.01))
    assert (late.finish_reason, late.text, late.first_token_s) == ("deadline", "", None)
    running.cancel()
    await engine.close()


async def test_a_waiting_reply_knows_its_place(engine: LocalEngine) -> None:
    """Eight places and ten replies: the ninth is next, the tenth after it, then all are done."""
    streams = [engine.generate(greedy("slow", BASE, 80)) for _ in range(10)]
    assert [stream.ahead() for stream in streams] == [0] * 8 + [1, 2]
    for stream in streams:
        await stream.result()
    assert [stream.ahead() for stream in streams] == [0] * 10


async def test_full_queue_is_busy(engine: LocalEngine) -> None:
    """One request more than batch and queue hold is refused at once; nothing else is lost."""
    streams = [engine.generate(greedy(f"n {i}", tokens=8)) for i in range(16)]
    with pytest.raises(EngineBusy, match="8 replies are waiting"):
        engine.generate(greedy("one more"))
    reasons = {(await stream.result()).finish_reason for stream in streams}
    assert reasons <= {"stop", "length"}
    assert engine.stats().replies_total == 16


async def test_stop_string_ends_the_reply(engine: LocalEngine) -> None:
    """The reply ends before a stop string, of which nothing was streamed."""
    text = (await answer(engine, greedy("hi", tokens=40))).text
    stop = text[10:13]
    request = greedy("hi", tokens=40)
    request = replace(request, sampling=replace(request.sampling, stop=(stop,)))
    stream = engine.generate(request)
    streamed = "".join([piece async for piece in stream])
    assert streamed == text[: text.index(stop)]
    assert (await stream.result()).finish_reason == "stop"


async def test_same_seed_same_reply_whatever_the_neighbours(loaded: LocalEngine) -> None:
    """A seed gives one reply, alone or among others; another seed gives another."""
    request = GenerationRequest(chat("hello"), NAMES[0], SAMPLED)
    alone = await answer(loaded, request)
    others = [
        loaded.generate(GenerationRequest(chat(w), n, replace(SAMPLED, seed=None, temperature=1.3)))
        for w, n in zip(WORDS, (BASE, *NAMES), strict=True)
    ]
    crowded = await answer(loaded, request)
    other = await answer(loaded, replace(request, sampling=replace(SAMPLED, seed=8)))
    assert crowded.token_ids == alone.token_ids != other.token_ids
    seeds = {(await stream.result()).seed for stream in others}
    assert len(seeds) == 4 and alone.seed == 7


async def test_a_drawn_seed_reproduces_the_reply(engine: LocalEngine) -> None:
    """With no seed given, the result's seed gives the same reply again."""
    request = GenerationRequest(chat("hello"), sampling=replace(SAMPLED, seed=None))
    first = await answer(engine, request)
    again = replace(request, sampling=replace(SAMPLED, seed=first.seed))
    assert (await answer(engine, again)).token_ids == first.token_ids


async def test_long_chats_are_trimmed(engine: LocalEngine) -> None:
    """The oldest messages go; how many is reported, and the prompt and reply fit the context."""
    turns = [Message("user" if i % 2 == 0 else "assistant", f"{i} " * 40) for i in range(9)]
    request = GenerationRequest((Message("system", "be kind"), *turns), sampling=SAMPLED)
    result = await answer(engine, request)
    assert result.dropped_messages == 6  # five turns are too many, and a chat starts with a user
    assert result.prompt_tokens <= 512 - SAMPLED.max_tokens


async def test_more_tokens_than_the_context_holds(engine: LocalEngine) -> None:
    """A reply longer than the context ends with `length` where the context ends."""
    request = GenerationRequest(chat("hi"), sampling=replace(SAMPLED, max_tokens=4000, seed=3))
    result = await answer(engine, request)
    assert result.prompt_tokens + len(result.token_ids) <= 512


# -- refusals


async def test_unknown_adapter_is_refused_at_once(engine: LocalEngine) -> None:
    """A request for an adapter that is not resident never starts."""
    with pytest.raises(UnknownAdapter, match="cats@v9"):
        engine.generate(greedy("hi", "cats@v9"))
    with pytest.raises(UnknownAdapter):
        await engine.unload("cats@v9")
    with pytest.raises(UnknownAdapter):
        await engine.warm("cats@v9")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"seed": 2**70}, "seed"),
    ],
)
async def test_senseless_sampling_is_refused(
    engine: LocalEngine, change: dict[str, float], reason: str
) -> None:
    """Sampling out of range is refused with the key and value."""
    with pytest.raises(InvalidInput, match=reason):
        engine.generate(GenerationRequest(chat("hi"), sampling=replace(SAMPLED, **change)))


async def test_same_name_other_content_is_refused(
    loaded: LocalEngine, tiny_base: BaseModel, adapters: dict[str, Path], tmp_path: Path
) -> None:
    """A name never changes its content; the same content again is fine."""
    await loaded.load(NAMES[0], adapters[NAMES[0]])
    other = publish_tiny_adapter(
        tmp_path / "other", tiny_base.path, NAMES[0], seed=99, base_sha256=tiny_base.sha256
    )
    with pytest.raises(AdapterRefused, match="never changes its content"):
        await loaded.load(NAMES[0], other)


async def test_least_recently_used_makes_room(
    tiny_base: BaseModel, adapters: dict[str, Path], reference: Reference
) -> None:
    """At the limit the idle, unpinned adapter used longest ago goes; or load is refused."""
    settings = ServingSettings(max_batch=4, max_adapters=2, max_context_tokens=512)
    engine = LocalEngine(tiny_base, settings=settings, dtype="float32", device="cpu", threads=1)
    await engine.start()
    for name in NAMES[:2]:
        await engine.load(name, adapters[name])
    await answer(engine, greedy("hi", NAMES[0]))
    await engine.load(NAMES[2], adapters[NAMES[2]])
    assert engine.stats().adapters == (NAMES[0], NAMES[2])
    engine.pin(NAMES)
    with pytest.raises(AdaptersFull, match="max_adapters"):
        await engine.load(NAMES[1], adapters[NAMES[1]])
    got = await answer(engine, greedy("hi", NAMES[2]))
    assert got.token_ids == reference.tokens("hi", NAMES[2])
    await engine.close()
