"""Chat completions as OpenAI's own client asks for them, and what is stored of them."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from tests.bot.api.conftest import HELLO, LONG, Served, standstill


async def test_a_completion_is_a_stored_reply(served: Served) -> None:
    """Its id is the reply's, and text, usage, adapter and prompt are the row's."""
    done = await served.client().chat.completions.create(model="base", messages=HELLO)
    row = await served.reply(done.id)
    assert (done.choices[0].message.content, done.model) == (row.text, "base")
    assert row.prompt[-1].content == "Hello there" and row.scope == "api" and row.kept
    assert done.usage is not None
    counted = (done.usage.prompt_tokens, done.usage.completion_tokens, done.usage.total_tokens)
    assert counted == (row.prompt_tokens, row.tokens, row.prompt_tokens + row.tokens)


async def test_a_stream_is_the_same_text_in_pieces(served: Served) -> None:
    """The pieces concatenate to the stored text; the last chunk counts the tokens."""
    stream = await served.client().chat.completions.create(
        model="live", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [one async for one in stream]
    text = "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
    row = await served.reply(chunks[0].id)
    assert row.text == text and len({one.id for one in chunks}) == 1
    assert chunks[-2].choices[0].finish_reason in ("stop", "length")
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == row.tokens


async def test_the_same_seed_gives_the_same_text(served: Served) -> None:
    """Twice the same request with a seed, and one with another."""
    client = served.client()
    texts = []
    for seed in (7, 7, 8):
        done = await client.chat.completions.create(
            model="base", messages=HELLO, seed=seed, temperature=1.5
        )
        texts.append(done.choices[0].message.content)
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("stream", [False, True])
async def test_each_choice_has_an_id_of_its_own(served: Served, stream: bool) -> None:
    """Three choices are three stored replies in one talk; the completion's id is the first's."""
    made: Any = await served.client().chat.completions.create(
        model="base", messages=HELLO, n=3, seed=2**63 - 2, stream=stream, temperature=1.5
    )
    ids: dict[int, str] = {}
    for one in [chunk async for chunk in made] if stream else [made]:
        ids |= {choice.index: choice.model_extra["id"] for choice in one.choices}
        assert one.id == ids[0]
    rows = [await served.reply(ids[index]) for index in range(3)]
    assert [row.seed for row in rows] == [2**63 - 2, 2**63 - 1, -(2**63)]
    assert len({row.text for row in rows}) == 3 and len({row.conversation_id for row in rows}) == 1


async def test_a_stop_string_ends_the_reply(served: Served) -> None:
    """Its text goes up to the first of the strings, as one string or as a list."""
    client = served.client()
    whole = await client.chat.completions.create(model="base", messages=HELLO, temperature=0)
    text = whole.choices[0].message.content or ""
    cut = text[3:5]
    for stop in (cut, ["never said so", cut]):
        done = await client.chat.completions.create(
            model="base", messages=HELLO, temperature=0, stop=stop
        )
        assert done.choices[0].message.content == text[: text.index(cut)]
        assert done.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_the_length_is_bounded_by_either_name(served: Served, field: str) -> None:
    """Two tokens and no more, and the reason says so; a bound beyond the context is none."""
    bound: Any = {field: 2}
    done = await served.client().chat.completions.create(model="base", messages=HELLO, **bound)
    assert done.usage is not None and done.usage.completion_tokens == 2
    assert done.choices[0].finish_reason == "length"
    bound = {field: 10**12}
    done = await served.client().chat.completions.create(model="base", messages=HELLO, **bound)
    assert (await served.reply(done.id)).sampling.max_tokens == 512


async def test_text_may_come_in_parts(served: Served) -> None:
    """Parts are joined; a developer's message is a system message; half a character is none."""
    messages: Any = [
        {"role": "developer", "content": "Be brief\x00"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}],
        },
    ]
    done = await served.client().chat.completions.create(model="base", messages=messages)
    prompt = (await served.reply(done.id)).prompt
    assert [(one.role, one.content) for one in prompt] == [
        ("system", "Be brief"),
        ("user", "Hello"),
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tools": [{"type": "function"}]}, "tools is not supported"),
        ({"logprobs": True}, "logprobs is not supported"),
        ({"response_format": {"type": "json_object"}}, "response_format is not supported"),
        ({"frequency_penalty": 0.5}, "frequency_penalty is not supported"),
        ({"n": 99}, "n: "),
        ({"temperature": 9}, "temperature: "),
        ({"seed": 2**64}, "seed: "),
        ({"seed": "7"}, "seed: "),
        ({"stop": [""]}, "stop: expected"),
        ({"max_tokens": 0}, "max_tokens: "),
        ({"messages": []}, "messages: "),
        ({"messages": [{"role": "tool", "content": "x"}]}, "role: 'tool' is not supported"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "the last message must be"),
        ({"messages": [{"role": "user", "content": " "}]}, "the last message must be"),
        ({"messages": [{"role": "user", "content": None}]}, "content: missing"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "'image_url' are not supported",
        ),
        ({"messages": [{"role": "user", "content": "x" * 20000}]}, "this model reads 512 tokens"),
        ({"user": "x" * 300}, "user has 300 characters"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_name(
    served: Served, change: dict[str, Any], said: str
) -> None:
    """A 400 in OpenAI's shape, which its client raises as BadRequestError; nothing is stored."""
    body = {"model": "base", "messages": HELLO, **change}
    with pytest.raises(openai.BadRequestError, match=said):
        await served.client().post("/chat/completions", body=body, cast_to=object)
    assert await served.world.database.run(lambda db: db.replies.pending()) == []


async def test_fields_that_change_nothing_are_ignored(served: Served) -> None:
    """Clients send much that is of no consequence here."""
    done = await served.client().chat.completions.create(
        model="base",
        messages=HELLO,
        tools=[],
        tool_choice="none",
        response_format={"type": "text"},
        frequency_penalty=0,
        logit_bias={},
        metadata={"a": "b"},
        store=True,
        extra_body={"something_new": [1, 2]},
    )
    assert done.choices[0].message.content is not None


async def taken(served: Served, places: int) -> None:
    """Wait until the engine holds so many replies."""
    async with asyncio.timeout(10):
        while True:
            stats = served.world.engine.stats()
            if stats.active + stats.waiting == places:
                return
            await asyncio.sleep(0.01)


async def test_a_full_queue_is_a_rate_limit(served: Served) -> None:
    """With every place taken the next is told when to come again, and nothing of it goes on."""
    create = served.client().chat.completions.create
    with standstill(served.world):
        full = asyncio.create_task(create(model="base", messages=HELLO, n=7, **LONG))
        await taken(served, 7)
        with pytest.raises(openai.RateLimitError) as refused:
            await create(model="base", messages=HELLO, n=2, **LONG)
    assert refused.value.response.headers["retry-after"] == "1"
    assert refused.value.code == "rate_limit_exceeded"
    assert len((await full).choices) == 7
    await taken(served, 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_frees_its_place(served: Served, stream: bool) -> None:
    """Before the model wrote another word; what there was is stored as cancelled."""
    body = {"model": "base", "messages": HELLO, "n": 2, "stream": stream, **LONG}
    with standstill(served.world):
        async with served.http() as http:
            request = asyncio.create_task(_read_one(http, body))
            await taken(served, 2)
            held = list(served.state.running)
            await asyncio.wait({request}, timeout=0.2)
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)
        await asyncio.sleep(0.1)
    await taken(served, 0)
    rows = [await one.finished() for one in held]
    assert [(row.finish_reason, row.tokens) for row in rows] == [("cancelled", 0)] * 2


async def _read_one(http: Any, body: dict[str, Any]) -> None:
    async with http.stream("POST", "/v1/chat/completions", json=body) as response:
        async for _ in response.aiter_lines():
            return


async def test_a_stop_cuts_what_does_not_end_in_time(served: Served) -> None:
    """The stream says so, what there was is stored as cancelled, and nothing new begins."""
    with standstill(served.world):
        stream = await served.client().chat.completions.create(
            model="live", messages=HELLO, stream=True, **LONG
        )
        first = await anext(stream)
        stopping = asyncio.create_task(served.state.settle(0.05))
        await asyncio.sleep(0.2)
    with pytest.raises(openai.APIError, match="cut off"):
        [chunk async for chunk in stream]
    await stopping
    assert (await served.reply(first.id)).finish_reason == "cancelled"
    with pytest.raises(openai.InternalServerError, match="the service is stopping"):
        await served.client().chat.completions.create(model="live", messages=HELLO)


async def test_a_talk_keeps_its_conversation(served: Served) -> None:
    """Requests that begin alike are one talk of one person; what they say is not in its key."""
    client = served.client()
    first = await client.chat.completions.create(model="live", messages=HELLO)
    longer = [*HELLO, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Go"}]
    second = await client.chat.completions.create(model="live", messages=longer)
    other = await client.chat.completions.create(
        model="live", messages=[{"role": "user", "content": "Something else"}]
    )
    talks = [(await served.reply(one.id)).conversation_id for one in (first, second, other)]
    assert talks[0] == talks[1] != talks[2]


async def test_the_scopes_persona_speaks_where_no_system_message_does(served: Served) -> None:
    """A client's own system message goes before it."""
    await served.world.chat.persona("api")
    await served.world.database.run(
        lambda db: db.scopes.set_persona("api", "Be kind", actor="test")
    )
    own: Any = [{"role": "system", "content": "Be terse"}, *HELLO]
    for messages, persona in ((HELLO, "Be kind"), (own, "Be terse")):
        done = await served.client().chat.completions.create(model="live", messages=messages)
        assert (await served.reply(done.id)).prompt[0].content == persona
