"""Whether it is up, whether it can answer, and its figures."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from bot.api.app import beside, create_api
from bot.api.readiness import Readiness
from bot.web.server import serving
from bot.world import World
from tests.bot.api.conftest import HELLO, Served


async def figures(served: Served) -> dict[str, float]:
    """Read the figures by name and labels."""
    async with served.http() as http:
        text = (await http.get("/metrics")).text
    return {
        name: float(value)
        for name, value in re.findall(r"^(thumbtune_\S+(?:{.*})?) (\S+)$", text, re.MULTILINE)
    }


async def test_it_says_that_it_is_up_and_ready(served: Served) -> None:
    """Without a key, in a word."""
    async with served.http() as http:
        assert (await http.get("/healthz")).text == "ok\n"
        assert (await http.get("/readyz")).text == "ready\n"


async def test_a_stopped_engine_is_not_ready(served: Served) -> None:
    """503 with the reason, while the process is still up; completions say so too."""
    await served.world.engine.close()
    async with served.http() as http:
        answer = await http.get("/readyz")
        assert answer.status_code == 503 and "the engine does not answer" in answer.text
        assert (await http.get("/healthz")).status_code == 200
        body = {"model": "base", "messages": HELLO}
        refused = await http.post("/v1/chat/completions", json=body)
    assert (refused.status_code, refused.json()["error"]["type"]) == (503, "server_error")


async def test_a_closed_database_is_not_ready(world: World) -> None:
    """The reason names it."""
    readiness = Readiness(world)
    assert await readiness.fault() == ""
    await world.database.close()
    readiness = Readiness(world)
    assert "the database does not answer" in await readiness.fault()
    await world.database.open()


async def test_one_look_is_good_for_a_second(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many probes cost the engine one."""
    readiness, looks = Readiness(world), 0
    look = readiness._look

    async def counted() -> str:
        nonlocal looks
        looks += 1
        return await look()

    monkeypatch.setattr(readiness, "_look", counted)
    for _ in range(10):
        await readiness.fault()
    assert looks == 1


async def test_the_figures_follow_what_happens(served: Served) -> None:
    """Requests by route and status, tokens, first token, votes, queue, adapters, training."""
    done = await served.client().chat.completions.create(model="base", messages=HELLO)
    async with served.http() as http:
        await http.post("/v1/feedback", json={"id": done.id, "kind": "up"})
        await http.get("/nowhere")
        await http.get("/v1/models/x")
    found = await figures(served)
    assert done.usage is not None
    tokens = 'thumbtune_tokens_total{kind="completion"}'
    assert found[tokens] == done.usage.completion_tokens
    requests = {
        ("/v1/chat/completions", "POST", 200),
        ("/v1/models/{model:path}", "GET", 404),
        ("other", "other", 404),
    }
    for route, method, status in requests:
        name = f'{{method="{method}",route="{route}",status="{status}"}}'
        assert found[f"thumbtune_requests_total{name}"] == 1
    assert found["thumbtune_first_token_seconds_count"] == 1
    assert found['thumbtune_votes{kind="up"}'] == 1
    assert found['thumbtune_training_runs{state="training"}'] == 0
    assert {
        "thumbtune_queue_length",
        "thumbtune_running_replies",
        "thumbtune_adapters_resident",
    } <= (found.keys())


@pytest.fixture
async def both(world: World) -> AsyncIterator[str]:
    """The API beside another application, on one address."""
    other = FastAPI()

    @other.get("/")
    async def page() -> str:
        return "a page"

    @other.get("/v1x")
    async def near() -> str:
        raise RuntimeError

    async with serving(beside(create_api(world), other), host="127.0.0.1", port=0) as url:
        yield url


async def test_it_stands_beside_another_application(both: str) -> None:
    """Each has its own paths, guard and errors."""
    async with httpx.AsyncClient(base_url=both) as http:
        assert (await http.get("/")).json() == "a page"
        assert (await http.get("/", headers={"Host": "evil.example"})).status_code == 200
        assert (await http.get("/healthz", headers={"Host": "evil.example"})).status_code == 403
        assert (await http.get("/v1/nothing")).json()["error"]["code"] == "unknown_url"
        assert (await http.get("/nothing")).json() == {"detail": "Not Found"}
        assert (await http.get("/v1x")).text == "Internal Server Error"
