"""The stand-in answers as vLLM's own front end does, and the backend speaks with both alike."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from bot.web.server import serving
from core.basemodel import BaseModel
from core.errors import EngineBusy
from core.generation import BASE
from core.sections import ServingSettings
from serving.engine import LocalEngine
from serving.vllm import VllmEngine
from tests.serving.vllm_side import ASK, ONE, TWO
from tests.vllm_double import VllmDouble

READ = "0.33.0"
"""The version whose source was read; the helper reaches into it."""
found = version("vllm") if importlib.util.find_spec("vllm") else "none"
if found != READ:
    pytest.skip(f"needs vLLM {READ} to compare with; here is {found}", allow_module_level=True)

from tests.serving.vllm_front import (  # noqa: E402 - it imports vLLM
    KEY,
    LENGTH,
    Client,
    make_front,
)

HELLO = [{"role": "user", "content": "Hello"}]
ASKED = {"model": "tiny-base", "messages": HELLO, "temperature": 0, "max_tokens": 3}
STREAM = {"stream": True, "stream_options": {"include_usage": True}, "return_token_ids": True}
LOAD, UNLOAD, WRITE = "/load_lora_adapter", "/unload_lora_adapter", "/chat/completions"


@dataclass(frozen=True)
class Front:
    """vLLM's front end on a socket."""

    client: Client
    app: Any
    url: str


@pytest_asyncio.fixture
async def front(tiny_base: BaseModel, tmp_path: Path) -> AsyncIterator[Front]:
    """Serve it."""
    bounds = ServingSettings(max_batch=32, decoder="generic", max_context_tokens=LENGTH)
    engine = LocalEngine(tiny_base, settings=bounds, dtype="float32", device="cpu", threads=1)
    await engine.start()
    client = Client(engine, tmp_path / "private")
    app = make_front(client, "tiny-base")
    async with serving(app, host="127.0.0.1", port=0) as url:
        yield Front(client, app, f"{url}/v1")
    await engine.close()


async def test_both_answer_every_question_alike(
    front: Front, tiny_base: BaseModel, adapters: dict[str, Path]
) -> None:
    """The same statuses, fields and words; identifiers, times and chunking aside."""
    place = str(adapters[ONE])
    questions: list[tuple[str, dict[str, Any]]] = [
        (WRITE, ASKED),
        (WRITE, {**ASKED, "return_token_ids": True, "logprobs": True}),
        (WRITE, {**ASKED, **STREAM}),
        (WRITE, {**ASKED, "model": "live"}),
        (LOAD, {"lora_name": "", "lora_path": ""}),
        (LOAD, {"lora_name": "tiny-base", "lora_path": place}),
        (LOAD, {"lora_name": "x", "lora_path": "/srv/none"}),
        (LOAD, {"lora_name": "shop@v1-ff", "lora_path": place}),
        (LOAD, {"lora_name": "shop@v1-ff", "lora_path": place}),
        (WRITE, {**ASKED, **STREAM, "model": "shop@v1-ff"}),
        (UNLOAD, {"lora_name": "shop@v1-ff"}),
        (UNLOAD, {"lora_name": "shop@v1-ff"}),
        (UNLOAD, {"lora_name": ""}),
        ("/nothing", {}),
    ]
    async with VllmDouble(tiny_base, api_key=KEY) as double:
        told = [await answers(url, questions) for url in (front.url, double.url)]
    for question, real, ours in zip(questions, *told, strict=True):
        assert real == ours, question


async def answers(url: str, questions: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    """Ask all; return what may be compared of each answer, the list of models after each."""
    found = []
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as http:
        for path, body in questions:
            answer = await http.post(url + path, json=body)
            cards = (await http.get(f"{url}/models")).json()
            found.append((answer.status_code, comparable(answer), plain(cards)))
        found[-1] += ((await http.get(f"{url}/models", headers={"Authorization": ""})).text,)
    return found


def comparable(answer: httpx.Response) -> Any:
    """Return an answer's content; of a stream its first and last events."""
    kind = answer.headers.get("content-type")
    if kind is None or not kind.startswith("text/event-stream"):
        return kind, plain(answer.json()) if kind == "application/json" else answer.text
    events = [line.removeprefix("data: ") for line in answer.text.split("\n\n")]
    first, *_, last, usage = (json.loads(event) for event in events[:-2])
    last["choices"][0]["token_ids"] = []  # how many came with earlier events differs
    return plain([first, last, usage]), events[-2:]


def plain(value: Any) -> Any:
    """Return a value without what is new each time; the order of fields counts."""
    if isinstance(value, dict):
        new = ("id", "created", "system_fingerprint", "logprob")
        return [(k, "…" if k in new and k != "model" else plain(v)) for k, v in value.items()]
    return [plain(item) for item in value] if isinstance(value, list) else value


async def test_a_version_lives_at_vllms_own_front_end(
    front: Front, adapters: dict[str, Path], tmp_path: Path
) -> None:
    """Loaded, heard, forgotten, loaded again, taken out; busy is busy."""
    settings = ServingSettings(
        backend="vllm", remote_url=front.url, max_context_tokens=LENGTH,
        vllm_adapters=str(tmp_path / "shared"),
    )  # fmt: skip
    engine = VllmEngine(
        front.client.engine.base, settings=settings, key=KEY, data_dir=tmp_path, lora_rank=16
    )
    models = front.app.state.openai_serving_models
    try:
        await engine.start()
        assert "adapters up to rank 16" in await engine.look()
        for name in (ONE, TWO):
            await engine.load(name, adapters[name])
        asked = [replace(ASK, adapter=name) for name in (BASE, ONE, TWO)]
        before = [(await engine.generate(one).result()).text for one in asked]
        assert len(set(before)) == 3
        models.lora_requests.clear()
        after = await asyncio.gather(*(engine.generate(one).result() for one in asked * 5))
        assert [one.text for one in after] == before * 5 and len(models.lora_requests) == 2
        front.client.full = 1
        with pytest.raises(EngineBusy):
            await engine.generate(ASK).result()
        await engine.unload(ONE)
        assert [name.partition("-")[0] for name in models.lora_requests] == [TWO]
    finally:
        await engine.close()
