"""The stand-in for vLLM is what OpenAI's own client expects of vLLM, and says what vLLM says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

from core.basemodel import BaseModel
from tests.vllm_double import VllmDouble

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]


@pytest_asyncio.fixture
async def double(tiny_base: BaseModel) -> AsyncIterator[VllmDouble]:
    """A server with a key."""
    async with VllmDouble(tiny_base, api_key="secret", max_lora_rank=4) as running:
        yield running


@pytest_asyncio.fixture
async def http(double: VllmDouble) -> AsyncIterator[httpx.AsyncClient]:
    """A plain client that knows the key."""
    headers = {"Authorization": "Bearer secret"}
    async with httpx.AsyncClient(base_url=double.url, headers=headers, timeout=60) as client:
        yield client


async def load(http: httpx.AsyncClient, name: str, path: Path | str) -> httpx.Response:
    """Load an adapter."""
    body = {"lora_name": name, "lora_path": str(path)}
    return await http.post("/load_lora_adapter", json=body)


async def test_openais_client_reads_its_models_and_both_kinds_of_completion(
    double: VllmDouble, adapters: dict[str, Path], http: httpx.AsyncClient
) -> None:
    """Whole and streamed are the same words; an adapter's differ from the base's."""
    name, directory = next(iter(adapters.items()))
    await load(http, name, directory)
    async with openai.AsyncOpenAI(base_url=double.url, api_key="secret", max_retries=0) as client:
        cards = (await client.models.list()).data
        assert [(card.id, card.owned_by) for card in cards] == [
            ("tiny-base", "vllm"),
            (name, "vllm"),
        ]
        texts = []
        for model in ("tiny-base", name):
            asked: dict[str, Any] = {
                "model": model, "messages": HELLO, "temperature": 0, "max_tokens": 12
            }  # fmt: skip
            whole = await client.chat.completions.create(**asked)
            stream = await client.chat.completions.create(
                **asked, stream=True, stream_options={"include_usage": True}
            )
            chunks = [chunk async for chunk in stream]
            assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == (
                whole.choices[0].message.content
            )
            assert {chunk.model for chunk in chunks} == {model} == {whole.model}
            assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
            told = chunks[-1].usage
            assert told and whole.usage and told.completion_tokens == whole.usage.completion_tokens
            texts.append(whole.choices[0].message.content)
    assert texts[0] != texts[1]


async def test_a_stream_has_vllms_fields_in_vllms_order(http: httpx.AsyncClient) -> None:
    """Of ChatCompletionStreamResponse, dumped without what was never set."""
    asked = {
        "model": "tiny-base", "messages": HELLO, "max_tokens": 3, "stream": True,
        "return_token_ids": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    events = (await http.post("/chat/completions", json=asked)).text.split("\n\n")
    bodies = [httpx.Response(200, text=e.removeprefix("data: ")).json() for e in events[:-2]]
    assert events[-2:] == ["data: [DONE]", ""]
    head = ["id", "object", "created", "model", "choices"]
    assert list(bodies[0]) == [*head, "prompt_token_ids", "prompt_text"]
    assert bodies[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert list(bodies[1]) == [*head, "kv_transfer_params"]
    piece = ["index", "delta", "logprobs", "finish_reason", "token_ids"]
    assert list(bodies[1]["choices"][0]) == piece
    assert list(bodies[-2]["choices"][0])[4:] == ["stop_reason", "token_ids", "weight_versions"]
    assert list(bodies[-1]) == [*head, "usage", "system_fingerprint"]
    assert (
        bodies[-1]["choices"] == []
        and len(bodies[0]["prompt_token_ids"]) == (bodies[-1]["usage"]["prompt_tokens"])
    )


async def test_adapters_come_and_go_with_vllms_answers(
    double: VllmDouble, adapters: dict[str, Path], http: httpx.AsyncClient
) -> None:
    """Each answer by its status and words; the listing follows."""
    name, directory = next(iter(adapters.items()))
    done = await load(http, name, directory)
    assert (done.status_code, done.text) == (
        200,
        f"Success: LoRA adapter '{name}' added successfully.",
    )
    card = (await http.get("/models")).json()["data"][1]
    assert (card["root"], card["parent"]) == (str(directory), "tiny-base")
    again = await load(http, name, directory)
    assert again.status_code == 400
    assert again.json()["error"] == {
        "message": f"The lora adapter '{name}' has already been loaded. If you want to load the "
        "adapter in place, set 'load_inplace' to True.",
        "type": "InvalidUserInput", "param": None, "code": 400,
    }  # fmt: skip
    gone = await http.post("/unload_lora_adapter", json={"lora_name": name})
    assert gone.text == f"Success: LoRA adapter '{name}' removed successfully."
    absent = await http.post("/unload_lora_adapter", json={"lora_name": name})
    assert (absent.status_code, absent.json()["error"]["message"]) == (
        404,
        f"The lora adapter '{name}' cannot be found.",
    )
    assert double.names() == set()


@pytest.mark.parametrize(
    ("name", "path", "status", "said"),
    [
        ("", "", 400, "Both 'lora_name' and 'lora_path' must be provided."),
        ("tiny-base", "/x", 400, "conflicts with a served base model"),
        ("x", "/srv/none", 404, "Loading lora x failed: No adapter found for <path>"),
    ],
)
async def test_what_cannot_be_loaded(
    http: httpx.AsyncClient, name: str, path: str, status: int, said: str
) -> None:
    """Named, with vLLM's status; paths are hidden as vLLM hides them."""
    answer = await load(http, name, path)
    assert answer.status_code == status and said in answer.json()["error"]["message"]


async def test_rank_lora_and_runtime_loading_are_vllms_options(
    double: VllmDouble, adapters: dict[str, Path], http: httpx.AsyncClient
) -> None:
    """Too large a rank and no LoRA are the engine's failures, no runtime loading is no route."""
    directory = next(iter(adapters.values()))
    double.options.max_lora_rank = 2
    large = await load(http, "x", directory)
    assert (large.status_code, large.json()["error"]["message"]) == (
        500,
        "Call to add_lora method failed: LoRA rank 4 is greater than max_lora_rank 2.",
    )
    double.options.enable_lora = False
    assert "Use --enable-lora to enable LoRA." in (await load(http, "x", directory)).text
    double.options.runtime_loras = False
    await double.restart()
    off = await load(http, "x", directory)
    assert (off.status_code, off.json()) == (404, {"detail": "Not Found"})


async def test_refusals_of_a_completion(double: VllmDouble, http: httpx.AsyncClient) -> None:
    """Unknown model, too long, full, dead, no key."""

    async def said(body: dict[str, Any]) -> tuple[int, str]:
        answer = await http.post("/chat/completions", json={"messages": HELLO, **body})
        return answer.status_code, answer.json()["error"]["message"]

    double.faults.full = 1
    assert (await said({"model": "tiny-base"}))[0] == 503
    assert await said({"model": "live"}) == (
        404,
        "The model `live` does not exist. Valid aliases: tiny-base.",
    )
    code, words = await said({"messages": [{"role": "user", "content": "x" * 600}]})
    assert code == 400 and "maximum context length is 512 tokens" in words
    double.faults.dead = True
    assert (await said({"model": "tiny-base"}))[0] == 500
    async with httpx.AsyncClient(base_url=double.url.removesuffix("/v1")) as bare:
        locked = await bare.get("/v1/models")
        assert (locked.status_code, locked.json()) == (401, {"error": "Unauthorized"})
        assert (await bare.get("/health")).status_code == 503  # no key is asked for here


async def test_tokens_of_a_chat_are_told_in_two_places(
    double: VllmDouble, http: httpx.AsyncClient
) -> None:
    """By /tokenize, outside the key, and with a completion that asks for them."""
    asked = {"model": "tiny-base", "messages": HELLO, "max_tokens": 1, "return_token_ids": True}
    told = (await http.post("/chat/completions", json=asked)).json()
    async with httpx.AsyncClient(base_url=double.url.removesuffix("/v1")) as bare:
        tokens = (await bare.post("/tokenize", json={"messages": HELLO})).json()
    assert tokens["tokens"] == told["prompt_token_ids"] and tokens["max_model_len"] == 512


async def test_a_name_lives_on_in_running_replies(
    double: VllmDouble, adapters: dict[str, Path], http: httpx.AsyncClient
) -> None:
    """An unloaded name's stream goes on to its end."""
    name, directory = next(iter(adapters.items()))
    await load(http, name, directory)
    double.faults.going.clear()
    async with openai.AsyncOpenAI(base_url=double.url, api_key="secret", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model=name, messages=HELLO, stream=True, max_tokens=5
        )
        await http.post("/unload_lora_adapter", json={"lora_name": name})
        double.faults.going.set()
        assert [c async for c in stream][-1].choices[0].finish_reason in ("stop", "length")
