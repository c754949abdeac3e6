"""An engine on another machine, spoken to by the HTTP API that `thumbtune serve` has there.

The far side holds its own copies of the adapters, in its own data directory. Knows no torch and no
database.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from core.errors import (
    AdapterRefused,
    AdaptersFull,
    EngineBusy,
    ModelError,
    ThumbtuneError,
    UnknownAdapter,
)
from core.generation import BASE, GenerationRequest
from core.manifest import CONTENT_FILES, MANIFEST
from serving.elsewhere import EngineElsewhere, lora_call, said
from serving.remote_reply import RemoteReply

_SENT = (MANIFEST, *CONTENT_FILES)


class RemoteEngine(EngineElsewhere):
    """Implements core.generation.Engine by `thumbtune serve`. Methods run on the event loop."""

    program = "`thumbtune serve`"

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._resident: set[str] = set()

    async def start(self) -> None:
        """See that the far side answers and has the same base. Raises ModelError."""
        await self.look()
        self._stopped = None

    async def look(self) -> str:
        """Do so, and say what was found."""
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
        return f"the same base, {self.base.name}"

    # -- replies

    def _names(self) -> tuple[str, ...]:
        return tuple(sorted(self._resident))

    def _begin(self, request: GenerationRequest, seed: int) -> RemoteReply:
        if request.adapter != BASE and request.adapter not in self._resident:
            raise UnknownAdapter(f"adapter {request.adapter!r} is not resident; load it first")
        return RemoteReply(request, seed, self._clock)

    def _end(self, reply: RemoteReply, fault: ThumbtuneError | None) -> None:
        if isinstance(fault, UnknownAdapter):
            self._resident.discard(reply.request.adapter)

    # -- adapters

    async def load(self, name: str, directory: Path) -> None:
        """Let the far side load its own copy, `<scope>/v<N>` of its adapters directory; where it
        has none, send it ours.

        Raises AdapterRefused or AdaptersFull.
        """
        place = "/".join(directory.parts[-2:])
        try:
            answer = await self._call("POST", "/load_lora_adapter", lambda: lora_call(name, place))
            if answer.status_code == httpx.codes.NOT_FOUND:
                answer = await self._send(name, directory)
        except EngineBusy as busy:
            raise AdaptersFull(name, self._settings.max_adapters) from busy
        if answer.is_error and "has already been loaded" not in answer.text:
            raise AdapterRefused(f"adapter {name}: {self._url} says: {said(answer)}")
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


def _base_of(answer: httpx.Response) -> str | None:
    """Return the hash of the far side's base; None where it is no Thumbtune."""
    try:
        return next(str(card["sha256"]) for card in answer.json()["data"] if card["id"] == BASE)
    except (ValueError, KeyError, TypeError, StopIteration):
        return None
