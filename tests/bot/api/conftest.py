"""The API of a tiny world, on a real socket, with OpenAI's own client."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import httpx
import openai
import pytest_asyncio

from bot.api.app import api_state, create_api
from bot.api.state import ApiState
from bot.keys import make_key
from bot.web.server import serving
from bot.world import World
from core.records import ApiRole, Feedback, Reply
from serving.engine import LocalEngine

LONG: dict[str, Any] = {"temperature": 0, "max_tokens": 400}
"""Greedily, the tiny model goes on for as long as it may."""
HELLO: list[Any] = [{"role": "user", "content": "Hello there"}]


@dataclass(frozen=True)
class Served:
    """A running API."""

    world: World
    state: ApiState
    url: str
    clients: list[openai.AsyncOpenAI] = field(default_factory=list)

    def client(self, key: str = "none") -> openai.AsyncOpenAI:
        """Return OpenAI's client, unmodified."""
        made = openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)
        self.clients.append(made)
        return made

    def http(self, key: str | None = None) -> httpx.AsyncClient:
        """Return a plain client."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    async def key(self, name: str, role: ApiRole = "user", **about: Any) -> str:
        """Make a key and return it."""
        made = await make_key(self.world.database, name, role=role, actor="test", **about)
        return made.secret

    async def reply(self, completion_id: str) -> Reply:
        """Return a stored reply."""
        return await self.world.database.run(lambda db: db.replies.get(completion_id))

    async def feedback(self, completion_id: str) -> list[Feedback]:
        """Return what was said of a reply."""
        return await self.world.database.run(lambda db: db.feedback.of_reply(completion_id))


@contextmanager
def standstill(world: World) -> Iterator[None]:
    """Let the model write nothing for the time of the block; requests are taken meanwhile."""
    over = threading.Event()
    worker = cast(LocalEngine, world.engine)._worker
    assert worker is not None
    worker.post(lambda: over.wait(30) and None)
    try:
        yield
    finally:
        over.set()


@asynccontextmanager
async def served_by(world: World, **api: object) -> AsyncIterator[Served]:
    """Serve a world's API with these settings on a free port."""
    wanted = world.settings.api.model_copy(update={"port": 0, **api})
    settings = world.settings.model_copy(update={"api": wanted})
    app = create_api(replace(world, settings=settings))
    async with serving(app, host="127.0.0.1", port=0) as url:
        state = api_state(app)
        running = Served(world, state, url)
        yield running
        for client in running.clients:
            await client.close()
        await state.settle(1)


@pytest_asyncio.fixture
async def served(world: World) -> AsyncIterator[Served]:
    """The API of a world without keys."""
    async with served_by(world) as running:
        yield running
