"""An engine on another machine, spoken to over HTTP: what every such engine does alike.

The far side writes the replies and holds the adapters; this side asks, and never waits without end:
a connection that cannot be made is tried again, one that is lost in the middle of a reply ends it
with a plain word. What is asked, and in which words, is a subclass's. Knows no torch and no
database.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx

from core.basemodel import BaseModel
from core.errors import EngineBusy, EngineStopped, ThumbtuneError
from core.generation import EngineStats, GenerationRequest
from core.sections import ServingSettings
from serving.remote_reply import RemoteReply, refusal
from serving.stream import ReplyStream

log = logging.getLogger(__name__)
CONNECT_S = 5.0
CALL_S = 60.0
"""How long a call that writes nothing may take: loading an adapter is the longest."""
PAUSES_S = (0.2, 0.5, 1.0, 2.0)
"""Before each further try to connect."""
_OURS = (200, 201, 400, 404, 409)
"""Statuses that the caller reads itself."""


class EngineElsewhere(ABC):
    """The common part of engines over HTTP; a subclass is a core.generation.Engine.

    All methods run on the event loop.
    """

    program = "the server"
    """What runs over there, for messages."""

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
            limits=httpx.Limits(max_connections=None),  # the bound on replies is the only one
            trust_env=False,
        )
        self._writing: dict[RemoteReply, asyncio.Task[None]] = {}
        self._stopped: EngineStopped | None = EngineStopped("the engine is not started yet")
        self._tokens = self._replies = 0

    # -- life

    async def close(self) -> None:
        """End what is being written and the connections. Idempotent."""
        await self._end_writing()
        await self._http.aclose()

    async def _end_writing(self) -> None:
        """Take no more replies and cancel those that are being written. Idempotent."""
        if self._stopped is None:
            self._stopped = EngineStopped("the engine is closed")
        running = list(self._writing.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def set_threads(self, threads: int) -> None:  # noqa: B027 - that is the whole answer
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
            adapters=self._names(),
            tokens_total=self._tokens,
            replies_total=self._replies,
        )

    # -- what a subclass says

    @abstractmethod
    async def look(self) -> str:
        """See that the far side is what it must be, and say what was found. Raises ModelError."""

    @abstractmethod
    def _names(self) -> tuple[str, ...]:
        """Return the adapters that new replies may use, sorted."""

    @abstractmethod
    def _begin(self, request: GenerationRequest, seed: int) -> RemoteReply:
        """Return the reply that is to be asked for; raises UnknownAdapter."""

    @abstractmethod
    def _end(self, reply: RemoteReply, fault: ThumbtuneError | None) -> None:
        """Hear of the end of a reply that was begun, before whoever waits for it."""

    # -- replies

    def generate(self, request: GenerationRequest) -> ReplyStream:
        """Ask for a reply; raises EngineBusy, UnknownAdapter or EngineStopped at once.

        What the far side refuses later is raised by the stream.
        """
        if self._stopped:
            raise self._stopped
        most = self._settings.max_batch + self._settings.max_queue
        if len(self._writing) >= most:
            raise EngineBusy(len(self._writing) - self._settings.max_batch, most)
        seed = request.sampling.seed
        reply = self._begin(request, secrets.randbits(31) if seed is None else seed)
        stream = ReplyStream(lambda: None)
        task = asyncio.create_task(self._write(reply, stream), name="remote-reply")
        stream.on_cancel(task.cancel)
        self._writing[reply] = task
        task.add_done_callback(lambda _: self._unbegun(reply, stream))
        return stream

    async def _write(self, reply: RemoteReply, stream: ReplyStream) -> None:
        fault = await self._outcome(reply, stream)
        self._ended(reply, fault)  # before anybody hears of it
        if fault:
            stream.fail(fault)
        else:
            stream.finish(reply.result())

    async def _outcome(self, reply: RemoteReply, stream: ReplyStream) -> ThumbtuneError | None:
        """Read a reply to its end; return why there is none."""
        allowed = reply.request.deadline_s or self._settings.deadline_s
        try:
            async with asyncio.timeout(allowed):
                await self._read(reply, stream)
        except TimeoutError:
            reply.reason = "deadline"
        except asyncio.CancelledError:
            reply.reason = "cancelled"  # by whoever asked, or by close: the stream must end
        except ThumbtuneError as error:
            return error
        except Exception as error:  # whatever it is, whoever waits must hear of it
            log.exception("%s answers what is not understood", self._url)
            return EngineStopped(f"{self._url} answers what is not understood: {error!r}")
        return None

    async def _read(self, reply: RemoteReply, stream: ReplyStream) -> None:
        """Read the reply, from a second connection if the first brought nothing."""
        for pause in (*PAUSES_S, None):
            try:
                await self._try(reply, stream)
                return
            except httpx.TransportError as error:
                if reply.text or pause is None:
                    raise self._lost(error) from error
                await asyncio.sleep(pause)

    async def _try(self, reply: RemoteReply, stream: ReplyStream) -> None:
        """Ask once, and read what comes to its end. Raises httpx.TransportError."""
        url, patience = f"{self._url}/chat/completions", httpx.Timeout(None, connect=CONNECT_S)
        async with self._http.stream("POST", url, json=reply.body(), timeout=patience) as answer:
            if answer.status_code != httpx.codes.OK:
                await answer.aread()
                raise self._refusal(answer)
            async for line in _lines(answer):
                stream.add(reply.take(line))
        if not reply.whole:
            raise httpx.RemoteProtocolError("the stream ended early")

    def _ended(self, reply: RemoteReply, fault: ThumbtuneError | None) -> None:
        self._writing.pop(reply, None)
        self._replies += 1
        self._tokens += reply.tokens
        self._end(reply, fault)

    def _unbegun(self, reply: RemoteReply, stream: ReplyStream) -> None:
        """End a reply that was cancelled before its task's first step: it could not do so."""
        if reply in self._writing:
            reply.reason = "cancelled"
            self._ended(reply, None)
            stream.finish(reply.result())

    # -- calls

    async def _call(
        self,
        method: str,
        path: str,
        body: Callable[[], dict[str, Any]] = dict,
        *,
        ours: tuple[int, ...] = _OURS,
    ) -> httpx.Response:
        """Call the far side; a lost connection is tried again. Raises a ThumbtuneError.

        `body` gives what is sent, anew for each try; `ours` are the statuses the caller reads.
        """
        for pause in (*PAUSES_S, None):
            try:
                answer = await self._http.request(method, self._url + path, **body())
                break
            except httpx.TransportError as error:
                if pause is None or isinstance(error, httpx.ReadTimeout):
                    raise self._lost(error) from error
                await asyncio.sleep(pause)
        if answer.status_code in ours:
            return answer
        raise self._refusal(answer)

    def _refusal(self, answer: httpx.Response) -> ThumbtuneError:
        """Return what a refusal of the far side means here."""
        return refusal(self._url, answer)

    def _lost(self, error: httpx.TransportError) -> EngineStopped:
        return EngineStopped(
            f"the connection to {self._url} is lost ({str(error) or type(error).__name__}); try "
            f"again in a moment, or look whether {self.program} runs there"
        )


async def _lines(answer: httpx.Response) -> AsyncIterator[str]:
    """Yield the lines of an event stream.

    Only a line feed ends one: httpx's own lines end at U+2028 too, which a reply may hold.
    """
    rest = b""
    async for part in answer.aiter_bytes():
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            yield line.rstrip(b"\r").decode("utf-8", "replace")


def lora_call(name: str, directory: str | Path) -> dict[str, Any]:
    """Return the body of a call that loads an adapter."""
    return {"json": {"lora_name": name, "lora_path": str(directory)}}


def said(answer: httpx.Response) -> str:
    """Return the far side's own words of an error."""
    try:
        error: Any = answer.json()["error"]
        return str(error["message"])
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status_code}"
