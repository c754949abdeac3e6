"""The REST API's door: every request is logged, limited, perhaps failed, and handed to its route.

Invariant: whatever happens, the request is in the log with the status its client saw, and an error
has Discord's body. What the routes do is in the routes_* modules.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.discord_double.chat import Chat
from tests.discord_double.errors import ApiError, unauthorized
from tests.discord_double.faults import AFTER, BEFORE, Fault, Faults, Seen
from tests.discord_double.limits import Limits, Verdict
from tests.discord_double.patterns import compiled
from tests.discord_double.records import Attachment, Json
from tests.discord_double.state import World

PREFIX = "/api/v10"
HTML = "<html><head><title>502 Bad Gateway</title></head><body>cloudflare</body></html>"
FILE_LIMIT_BYTES = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Call:
    """A request as its route sees it."""

    world: World
    chat: Chat
    path: dict[str, str]
    query: dict[str, str]
    body: Any
    files: dict[int, Attachment] = field(default_factory=dict)


Answer = Json | list[Json] | None
"""JSON, or None for 204."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes; `open` routes carry their own token in the path."""

    method: str
    template: str
    act: Callable[[Call], Answer]
    open: bool = False


class Rest:
    """Answers requests by a table of routes; in it, literal paths come before patterns."""

    def __init__(self, world: World, chat: Chat, routes: tuple[Route, ...]) -> None:
        self.limits = Limits()
        self.faults = Faults()
        self.seen: list[Seen] = []
        self._world = world
        self._chat = chat
        self._routes = routes

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        path = request.path.removeprefix(PREFIX)
        await asyncio.sleep(self.faults.delay_s(request.method, path))
        body, files = await self._read(request)
        fault = self.faults.next_for(request.method, path)
        closes = fault.closes if fault is not None else None
        if closes == BEFORE:
            answer = web.Response()
        elif fault is not None and closes is None:
            answer = self._failed(fault)
        else:
            answer = await self._answer(request, path, body, files)
        if closes in (BEFORE, AFTER) and request.transport is not None:
            request.transport.abort()
        status = 0 if closes else answer.status
        self.seen.append(Seen(request.method, path, status, time.monotonic(), body or {}))
        # a 429 without Via is what discord.py takes for a ban by the proxy in front of the API
        answer.headers["Via"] = "1.1 google"
        return answer

    async def _answer(
        self, request: web.Request, path: str, body: Any, files: dict[int, Attachment]
    ) -> web.Response:
        route, names = self._route_for(request.method, path)
        if route is None:
            return _error(ApiError(404, 0, "404: Not Found"))
        verdict = self.limits.take(request.method, route.template, path)
        if verdict.refusal is not None:
            return _too_many(verdict)
        try:
            if not route.open:
                self._check_token(request)
            answered = route.act(
                Call(self._world, self._chat, names, dict(request.query), body, files)
            )
        except ApiError as error:
            response = _error(error)
        else:
            response = _success(answered)
        response.headers.update(verdict.headers)
        return response

    def _route_for(self, method: str, path: str) -> tuple[Route | None, dict[str, str]]:
        for route in self._routes:
            found = compiled(route.template).fullmatch(path) if route.method == method else None
            if found is not None:
                return route, found.groupdict()
        return None, {}

    def _check_token(self, request: web.Request) -> None:
        if request.headers.get("Authorization") != f"Bot {self._world.application.token}":
            raise unauthorized()

    def _failed(self, fault: Fault) -> web.Response:
        if fault.status == 429:
            return _too_many(self.limits.refuse(retry_after_s=fault.retry_after_s))
        if fault.status == 502:
            return web.Response(status=502, text=HTML, content_type="text/html")
        message = fault.message or f"{fault.status}: made to fail"
        return _error(ApiError(fault.status, fault.code, message))

    async def _read(self, request: web.Request) -> tuple[Any, dict[int, Attachment]]:
        if request.content_type != "multipart/form-data":
            text = await request.text()
            return (json.loads(text) if text else None), {}
        form = await request.post()
        body = json.loads(str(form.get("payload_json", "{}")))
        files = {
            int(name[6:-1]): self._attachment(part)
            for name, part in form.items()
            if isinstance(part, web.FileField)
        }
        return body, files

    def _attachment(self, part: web.FileField) -> Attachment:
        return Attachment(
            self._world.clock.next_id(), part.filename, part.file.read(), part.content_type
        )


def as_json(body: Answer, *, status: int = 200) -> web.Response:
    """JSON with the bare content type of Discord's answers; discord.py parses no other."""
    text = json.dumps(body).encode()
    return web.Response(body=text, status=status, content_type="application/json")


def _success(answered: Answer) -> web.Response:
    return web.Response(status=204) if answered is None else as_json(answered)


def _error(error: ApiError) -> web.Response:
    return as_json(error.body, status=error.status)


def _too_many(verdict: Verdict) -> web.Response:
    response = as_json(verdict.refusal, status=429)
    response.headers.update(verdict.headers)
    return response
