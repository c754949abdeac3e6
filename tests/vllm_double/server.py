"""The double itself: an engine, a front end on a port of its own, and its death and return.

Invariant: what a process knew is gone with it; the port stays. It never leaves loopback.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from transformers import AutoTokenizer

from core.basemodel import BaseModel
from core.sections import ServingSettings
from serving.engine import LocalEngine
from tests.vllm_double.app import make_app
from tests.vllm_double.faults import Faults, Options
from tests.vllm_double.loras import Loras
from tests.vllm_double.scoring import Scorer
from tests.vllm_double.writing import Writer


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class VllmDouble:
    """A vLLM server on loopback. `options` hold from the next start on, `faults` at once."""

    def __init__(self, base: BaseModel, **options: Any) -> None:
        self.base = base
        self.options = Options(**{"root": str(base.path), **options})
        self.faults = Faults()
        self._home = tempfile.TemporaryDirectory(prefix="vllm-double-")
        self._port = 0
        self._starts = 0
        self._running: tuple[_Server, asyncio.Task[None]] | None = None

    async def __aenter__(self) -> VllmDouble:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.die()
        self._home.cleanup()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}/v1"

    def names(self) -> set[str]:
        """Return the names of the adapters it would answer to."""
        return set(self.loras.by_name)

    async def start(self) -> None:
        """Start a process: no adapter is loaded."""
        self._starts += 1
        options = self.options
        self.faults.dead = False
        bounds = ServingSettings(
            max_batch=32, max_queue=64, max_context_tokens=options.max_model_len,
            max_adapters=max(2, options.max_cpu_loras), decoder="generic",
        )  # fmt: skip
        self.engine = LocalEngine(
            self.base, settings=bounds, dtype="float32", device="cpu", threads=1
        )
        await self.engine.start()
        tokenizer = AutoTokenizer.from_pretrained(self.base.path)
        if options.chat_template is not None:
            tokenizer.chat_template = options.chat_template
        self.loras = Loras(self.engine, options, Path(self._home.name) / str(self._starts))
        scorer = Scorer(self.base.path)
        self.writer = Writer(self.engine, tokenizer, options, self.faults, scorer)
        app = make_app(options, self.faults, self.loras, self.writer)
        await self._listen(app)

    async def die(self) -> None:
        """End the process at once: connections are cut in the middle."""
        if self._running is None:
            return
        server, task = self._running
        self._running = None
        server.force_exit = server.should_exit = True
        for connection in list(server.server_state.connections):
            if transport := getattr(connection, "transport", None):
                transport.abort()
        await task
        await self.engine.close()

    async def restart(self) -> None:
        """Die and come back on the same port."""
        await self.die()
        await self.start()

    async def _listen(self, app: Any) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self._port))
        self._port = listener.getsockname()[1]
        config = uvicorn.Config(
            app, ws="none", lifespan="off", log_level="critical", access_log=False,
            timeout_graceful_shutdown=0,
        )  # fmt: skip
        server = _Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]), name="vllm-double")
        self._running = (server, task)
        while not server.started:
            await asyncio.sleep(0.01)
