"""An engine on another machine, spoken to by the HTTP API that `thumbtune serve` has there.

The far side writes the replies and holds the adapters, in its own data directory; this side asks,
and never waits without end: a connection that cannot be made is tried again, one that is lost in
the middle of a reply ends it with a plain word. Knows no torch and no database.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from core.basemodel import BaseModel
from core.errors import (
    AdapterRefused,
    AdaptersFull,
    EngineBusy,
    EngineStopped,
    ModelError,
    ThumbtuneError,
    UnknownAdapter,
)
from core.generation import BASE, EngineStats, GenerationRequest
from core.manifest import CONTENT_FILES, MANIFEST
from core.sections import ServingSettings
from serving.remote_reply import RemoteReply, refusal
from serving.stream import ReplyStream

log = logging.getLogger(__name__)
CONNECT_S = 5.0
CALL_S = 60.0
"""How long a call that writes nothing may take: loading an adapter is the longest."""
PAUSES_S = (0.2, 0.5, 1.0, 2.0)
"""Before each further try to connect."""


class RemoteEngine:
    """Implements core.generation.Engine over HTTP. All methods run on the event loop."""

    def __init__(
        self,
        base: BaseModel,
        *,
        settings: ServingSettings,
        key: str | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.base = base
        self._settings = settings
        self._url = settings.remote_url.rstrip("/")
        self._clock = clock
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(CALL_S, connect=CONNECT_S),
            trust_env=False,
        )
        self._writing: dict[asyncio.Task[None], ReplyStream] = {}
        self._resident: set[str] = set()
        self._stopped: EngineStopped | None = EngineStopped("the engine is not started yet")
        self._tokens = self._replies = 0

    # -- life

    async def start(self) -> None:
        """See that the far side answers and has the same base. Raises ModelError."""
        try:
            answer = await self._call("GET", "/models")
        except ThumbtuneError as error:
            raise ModelError(str(error)) from error
        far = _base_of(answer)
        if far != self.base.sha256:
            theirs = f"its base is {far[:12]}…" if far else "it names no base"
            raise ModelError(
                f"{self._url}: {theirs}, ours is {self.base.sha256[:12]}…; an adapter fits one "
                "base only: run `thumbtune serve` there with the same [model]"
            )
        self._stopped = None

    async def close(self) -> None:
        """End what is being written and the connections. Idempotent."""
        if self._stopped is None:
            self._stopped = EngineStopped("the engine is closed")
        for task in self._writing:
            task.cancel()
        await asyncio.gather(*self._writing, return_exceptions=True)
        await self._http.aclose()

    async def set_threads(self, threads: int) -> None:
        """Do nothing: the far side's cores are its own."""

    @property
    def shares_cores(self) -> bool:
        """Whether a run here leaves its threads alone; they are elsewhere."""
        return True

    def stats(self) -> EngineStats:
        """Read this side's counters; the far side's queue counts as being written."""
        return EngineStats(
            active=len(self._writing),
            waiting=0,
            adapters=tuple(sorted(self._resident)),
            tokens_total=self._tokens,
            replies_total=self._replies,
        )

    # -- replies

    def generate(self, request: GenerationRequest) -> ReplyStream:
        """Ask for a reply; raises EngineBusy, UnknownAdapter or EngineStopped at once.

        What the far side refuses later is raised by the stream.
        """
        if self._stopped:
            raise self._stopped
        if request.adapter != BASE and request.adapter not in self._resident:
            raise UnknownAdapter(f"adapter {request.adapter!r} is not resident; load it first")
        most = self._settings.max_batch + self._settings.max_queue
        if len(self._writing) >= most:
            raise EngineBusy(len(self._writing) - self._settings.max_batch, most)
        seed = request.sampling.seed
        reply = RemoteReply(request, secrets.randbits(31) if seed is None else seed, self._clock)
        stream = ReplyStream(lambda: None)
        task = asyncio.create_task(self._write(reply, stream), name="remote-reply")
        stream.on_cancel(task.cancel)
        self._writing[task] = stream
        task.add_done_callback(lambda done: self._ended(done, reply))
        return stream

    async def _write(self, reply: RemoteReply, stream: ReplyStream) -> None:
        allowed = reply.request.deadline_s or self._settings.deadline_s
        try:
            async with asyncio.timeout(allowed):
                await self._read(reply, stream)
        except TimeoutError:
            reply.reason = "deadline"
        except asyncio.CancelledError:
            reply.reason = "cancelled"  # by whoever asked, or by close: the stream must end
        except UnknownAdapter as error:
            self._resident.discard(reply.request.adapter)
            stream.fail(error)
            return
        except ThumbtuneError as error:
            stream.fail(error)
            return
        except Exception as error:  # whatever it is, whoever waits must hear of it
            log.exception("%s answers what is not understood", self._url)
            stream.fail(EngineStopped(f"{self._url} answers what is not understood: {error!r}"))
            return
        stream.finish(reply.result())

    async def _read(self, reply: RemoteReply, stream: ReplyStream) -> None:
        """Read the reply, from a second connection if the first brought nothing."""
        url = f"{self._url}/chat/completions"
        for pause in (*PAUSES_S, None):
            try:
                async with self._http.stream(
                    "POST", url, json=reply.body(), timeout=httpx.Timeout(None, connect=CONNECT_S)
                ) as answer:
                    if answer.status_code != httpx.codes.OK:
                        await answer.aread()
                        raise refusal(self._url, answer)
                    async for line in answer.aiter_lines():
                        stream.add(reply.take(line))
                if reply.whole:
                    return
                raise httpx.RemoteProtocolError("the stream ended early")
            except httpx.TransportError as error:
                if reply.text or pause is None:
                    raise self._lost(error) from error
                await asyncio.sleep(pause)

    def _ended(self, task: asyncio.Task[None], reply: RemoteReply) -> None:
        stream = self._writing.pop(task)
        self._replies += 1
        self._tokens += reply.tokens
        if task.cancelled():  # before it began: nobody else ends the stream
            reply.reason = "cancelled"
            stream.finish(reply.result())

    # -- adapters

    async def load(self, name: str, directory: Path) -> None:
        """Let the far side load its own copy, `<scope>/v<N>` of its adapters directory; where it
        has none, send it ours.

        Raises AdapterRefused or AdaptersFull.
        """
        place = "/".join(directory.parts[-2:])
        body = {"lora_name": name, "lora_path": place}
        try:
            answer = await self._call("POST", "/load_lora_adapter", lambda: {"json": body})
            if answer.status_code == httpx.codes.NOT_FOUND:
                answer = await self._send(name, directory)
        except EngineBusy as busy:
            raise AdaptersFull(name, self._settings.max_adapters) from busy
        if answer.is_error and "has already been loaded" not in answer.text:
            raise AdapterRefused(f"adapter {name}: {self._url} says: {_said(answer)}")
        self._resident.add(name)

    async def _send(self, name: str, directory: Path) -> httpx.Response:
        """Send an adapter's files; the far side verifies each byte against the manifest."""
        with ExitStack() as stack:
            try:
                files = [stack.enter_context((directory / file).open("rb")) for file in _SENT]
            except OSError as error:
                raise AdapterRefused(f"adapter {name}: cannot be sent: {error}") from error

            def afresh() -> dict[str, Any]:
                for file in files:
                    file.seek(0)
                return {"files": dict(zip(_SENT, files, strict=True))}

            return await self._call("PUT", f"/adapters/{name}", afresh)

    async def unload(self, name: str) -> None:
        """Let the far side free the adapter's place. Raises UnknownAdapter."""
        if name not in self._resident:
            raise UnknownAdapter(f"adapter {name!r} is not resident")
        self._resident.discard(name)
        await self._call("POST", "/unload_lora_adapter", lambda: {"json": {"lora_name": name}})

    async def warm(self, name: str) -> None:
        """Ask whether the far side is still there. Raises EngineStopped."""
        await self._call("GET", "/models")

    async def _call(
        self, method: str, path: str, body: Callable[[], dict[str, Any]] = dict
    ) -> httpx.Response:
        """Call the far side; a lost connection is tried again. Raises a ThumbtuneError.

        `body` gives what is sent, anew for each try.
        """
        for pause in (*PAUSES_S, None):
            try:
                answer = await self._http.request(method, self._url + path, **body())
                break
            except httpx.TransportError as error:
                if pause is None or isinstance(error, httpx.ReadTimeout):
                    raise self._lost(error) from error
                await asyncio.sleep(pause)
        if answer.status_code in _OURS:
            return answer
        raise refusal(self._url, answer)

    def _lost(self, error: httpx.TransportError) -> EngineStopped:
        return EngineStopped(
            f"the connection to {self._url} is lost ({str(error) or type(error).__name__}); try "
            "again in a moment, or look whether `thumbtune serve` runs there"
        )


_OURS = (200, 201, 400, 404, 409)
"""Statuses that the caller reads itself."""
_SENT = (MANIFEST, *CONTENT_FILES)


def _base_of(answer: httpx.Response) -> str | None:
    """Return the hash of the far side's base; None where it is no Thumbtune."""
    try:
        return next(str(card["sha256"]) for card in answer.json()["data"] if card["id"] == BASE)
    except (ValueError, KeyError, TypeError, StopIteration):
        return None


def _said(answer: httpx.Response) -> str:
    try:
        found: Any = answer.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status_code}"
    return str(found)
