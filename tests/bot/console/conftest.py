"""A console over a world on the tiny model, asked by a client that behaves as a browser does."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI

from bot.console.app import close_console, create_console
from bot.world import World
from core.generation import GenerationResult, GenerationStream

ORIGIN = "http://127.0.0.1:8700"


class Browser:
    """One browser: cookies, and the token of the page it loaded last."""

    def __init__(self, app: FastAPI) -> None:
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url=ORIGIN
        )
        self.token = ""

    async def get(self, path: str, **more: Any) -> httpx.Response:
        """Open a page, following redirects; remember its token."""
        answer = await self.client.get(path, follow_redirects=True, **more)
        found = re.search(r'"X-CSRF-Token": "(\w+)"', answer.text)
        self.token = found[1] if found else self.token
        return answer

    async def post(self, path: str, headers: dict[str, str] | None = None, **form: Any) -> Any:
        """Send a form as the page's script does."""
        sent = {"origin": ORIGIN, "x-csrf-token": self.token, "hx-request": "true"}
        return await self.client.post(path, data=form, headers={**sent, **(headers or {})})

    async def follow(self, reply_id: str) -> list[tuple[str, str]]:
        """Read a reply's events to their end."""
        answer = await self.client.get(f"/replies/{reply_id}/events")
        return events_of(answer.text)

    async def ask(self, text: str = "Hello?", conversation: str = "new") -> tuple[str, str]:
        """Say something and wait for the reply; return the conversation and the reply."""
        answer = await self.post(f"/chat/{conversation}/messages", text=text)
        if conversation == "new":
            conversation = answer.headers["hx-redirect"].rpartition("/")[2]
            answer = await self.get(f"/chat/{conversation}")
        reply_id = re.findall(r'data-reply="(r_\w+)"', answer.text)[-1]
        await self.follow(reply_id)
        return conversation, reply_id


class SlowStream:
    """A reply that comes slowly, for as long as nobody stops it."""

    def __init__(self, stream: GenerationStream) -> None:
        self._stream = stream
        self._stopped = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[str]:
        """Yield what the engine wrote, then wait to be stopped."""
        async for piece in self._stream:
            yield piece
        yield "…"
        await self._stopped.wait()

    def cancel(self) -> None:
        """Let it end."""
        self._stopped.set()

    def ahead(self) -> int:
        """Nobody is before it."""
        return 0

    async def result(self) -> GenerationResult:
        """Return what the engine wrote, as cancelled."""
        return replace(await self._stream.result(), finish_reason="cancelled")


@pytest.fixture
def slowly(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every reply go on until it is stopped."""
    generate = world.engine.generate
    monkeypatch.setattr(world.engine, "generate", lambda request: SlowStream(generate(request)))


def events_of(text: str) -> list[tuple[str, str]]:
    """Read (name, data) of each event in a stream."""
    found = []
    for block in text.split("\n\n"):
        lines = block.splitlines()
        names = [line[7:] for line in lines if line.startswith("event: ")]
        data = "\n".join(line[6:] for line in lines if line.startswith("data: "))
        found += [(name, data) for name in names]
    return found


@pytest_asyncio.fixture
async def console(world: World) -> AsyncIterator[FastAPI]:
    """The console of a world."""
    app = create_console(world, world.settings)
    yield app
    await close_console(app)


@pytest_asyncio.fixture
async def browser(console: FastAPI) -> AsyncIterator[Browser]:
    """A browser with the console's first page open."""
    opened = Browser(console)
    async with opened.client:
        await opened.get("/chat")
        yield opened
