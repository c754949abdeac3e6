"""An engine that is `vllm serve` with LoRA, spoken to by its own protocol.

Invariants: a name there means one content for ever, nothing is reloaded in place, and a reply is
either the asked version's or refused, never the base's instead. vLLM forgets its adapters when it
restarts: they are loaded again, after the server was looked at anew, and a reply that had not begun
is asked for again. Knows no torch and no database; docs/vllm.md says what is checked and what not.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from pathlib import Path

import httpx

from core.basemodel import BaseModel
from core.errors import (
    AdapterRefused,
    AdaptersFull,
    EngineStopped,
    ModelError,
    ThumbtuneError,
    UnknownAdapter,
)
from core.files import advisory_lock
from core.generation import BASE, GenerationRequest
from core.sections import ServingSettings
from serving.elsewhere import EngineElsewhere
from serving.prompt import fit_prompt, room_for_prompt
from serving.remote_reply import RemoteReply
from serving.residents import Residents
from serving.stream import ReplyStream
from serving.vllm_check import Cards
from serving.vllm_places import Placed, Shelf
from serving.vllm_reply import VllmReply
from serving.vllm_server import Known, VllmServer

log = logging.getLogger(__name__)
FRESH_S = 2.0
"""How long a look at the server's list of models holds."""
_LOCK = "vllm.lock"


class VllmEngine(EngineElsewhere):
    """Implements core.generation.Engine by vLLM. All methods run on the event loop."""

    program = "`vllm serve`"

    def __init__(
        self,
        base: BaseModel,
        *,
        settings: ServingSettings,
        key: str | None,
        data_dir: Path,
        lora_rank: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(base, settings=settings, key=key, clock=clock)
        self._data_dir, self._lora_rank = data_dir, lora_rank
        self._shelf = Shelf(settings, data_dir)
        self._residents: Residents[Placed] = Residents(settings.max_adapters)
        self._server = VllmServer(
            self._url, self._call, base=base, settings=settings, shelf=self._shelf
        )
        self._known: Known | None = None
        self._fingerprint: str | None = None
        self._odd = False
        self._unwelcome: set[Placed] = set()
        self._looking: asyncio.Task[Known] | None = None
        self._looked_at = 0.0
        self._loading = asyncio.Lock()
        self._alone = ExitStack()

    # -- life

    async def start(self) -> None:
        """Look at the server; take out what an earlier start left there. Raises ModelError."""
        await self.look()
        if self._alone.enter_context(advisory_lock(self._data_dir / _LOCK)):
            await self._sweep()
        self._stopped = None

    async def look(self) -> str:
        """See that the server is what it must be, and say what was found. Raises ModelError."""
        try:
            return (await self._meet()).told()
        except ThumbtuneError as error:
            raise ModelError(str(error)) from error

    async def close(self) -> None:
        """End what is being written and the connections; adapters stay loaded there. Idempotent."""
        await self._end_writing()
        if self._looking:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await super().close()
        self._alone.close()

    async def _sweep(self) -> None:
        """Take out what lies on our shelf: no other process of this data directory runs."""
        try:
            for called, (root, _) in (await self._server.cards()).adapters.items():
                if self._shelf.holds(root):
                    await self._server.take_out(called)
        except ThumbtuneError as error:
            raise ModelError(str(error)) from error
        await asyncio.to_thread(self._shelf.sweep)

    # -- looking at the server

    async def _meet(self) -> Known:
        """Return what is known of the server; look at it first where that is old or in doubt.

        Whoever comes meanwhile waits for the same look. Raises ModelError or EngineStopped.
        """
        if self._known and self._clock() - self._looked_at < FRESH_S:
            return self._known
        if self._looking is None:
            self._looking = asyncio.create_task(self._examine(), name="vllm-look")
            self._looking.add_done_callback(self._seen)
        looking = self._looking
        try:
            return await asyncio.shield(looking)
        except asyncio.CancelledError:
            if looking.cancelled():  # by close; nobody cancelled whoever waits
                raise EngineStopped("the engine is closed") from None
            raise

    def _seen(self, look: asyncio.Task[Known]) -> None:
        self._looking = None
        if not look.cancelled():
            look.exception()  # whoever waited has heard of it; with nobody waiting it is no news

    async def _examine(self) -> Known:
        """Look whether the server is as it was; where it is not, learn it anew.

        Adapters that it has forgotten are loaded again.
        """
        started, before = self._clock(), self._residents.all()
        cards, known = await self._server.cards(), self._known
        if known and known.fits(cards) and not self._forgotten(cards, before):
            self._looked_at = started
            return known
        self._known = None
        known = await self._server.learn(cards, self._lora_rank)
        await self._restore(cards)
        self._known, self._looked_at = known, started
        return known

    def _forgotten(self, cards: Cards, before: Collection[Placed]) -> bool:
        """Say whether one is not listed that was resident before the list and is one still."""
        missing = (p for p in before if not cards.has(p.called, p.there))
        return any(p in self._residents.all() and p not in self._unwelcome for p in missing)

    def _doubt(self, known: Known | None) -> None:
        """Look at the server again before the next reply, unless somebody did meanwhile."""
        if self._known is known:
            self._known = None

    async def _restore(self, cards: Cards) -> None:
        """Load what the server has forgotten; one that it refuses now is left out."""
        self._unwelcome.clear()
        for placed in self._residents.all():
            if cards.has(placed.called, placed.there):
                continue
            log.info("vLLM has forgotten %s; it is loaded again", placed.name)
            try:
                await self._server.bring(await self._put(placed.name, placed.source))
            except ThumbtuneError as error:  # the others speak on; its own replies say so
                log.error("it cannot be loaded now: %s", error)
                self._unwelcome.add(placed)
            if placed not in self._residents.all():  # taken out meanwhile
                await self._take_out(placed)

    # -- replies

    def _names(self) -> tuple[str, ...]:
        return self._residents.names()

    def _begin(self, request: GenerationRequest, seed: int) -> VllmReply:
        placed = None if request.adapter == BASE else self._residents.adapter(request.adapter)
        self._residents.hold(placed)
        reply = VllmReply(request, seed, self._clock)
        reply.model = placed.called if placed else ""
        reply.max_context = self._settings.max_context_tokens
        return reply

    def _end(self, reply: RemoteReply, fault: ThumbtuneError | None) -> None:
        adapter = reply.request.adapter
        if adapter != BASE:
            self._residents.release_name(adapter)
        if isinstance(reply, VllmReply) and self._looks_changed(reply):
            self._known = None

    def _looks_changed(self, reply: VllmReply) -> bool:
        """Say whether a reply speaks for another server than the one that was looked at."""
        before, now = self._fingerprint, reply.fingerprint
        self._fingerprint = now or before
        if before and now and now != before:
            self._odd = False
            return True
        if reply.read_otherwise and not self._odd:
            self._odd = True  # once: if the server is found to be the same, it is our counting
            log.warning("vLLM reads a chat otherwise than it is counted here; looking at it again")
            return True
        return False

    async def _try(self, reply: RemoteReply, stream: ReplyStream) -> None:
        assert isinstance(reply, VllmReply)  # noqa: S101 - _begin makes no other
        known = await self._ready(reply)
        try:
            try:
                await super()._try(reply, stream)
            except UnknownAdapter as error:
                log.info("%s; looking at the server again", error)
                self._doubt(known)
                known = await self._ready(reply)
                await super()._try(reply, stream)
        except httpx.TransportError:
            self._doubt(known)
            raise

    async def _ready(self, reply: VllmReply) -> Known:
        """See that the server is known, and that the reply says what to ask it."""
        known = await self._meet()
        if reply.request.adapter == BASE:
            reply.model = known.base
        if reply.prompt is None:
            tokenizer, messages = self._server.tokenizer, reply.request.messages
            assert tokenizer is not None  # noqa: S101 - the look has set it
            room = room_for_prompt(reply.max_context, reply.request.sampling.max_tokens)
            reply.prompt = await asyncio.to_thread(fit_prompt, tokenizer, messages, room)
        return known

    # -- adapters

    async def load(self, name: str, directory: Path) -> None:
        """Bring an adapter where vLLM sees it, let it be loaded, and hear it write.

        Idempotent for the same content. If all places are taken, the one used least recently that
        writes nothing makes room. Raises AdapterRefused, AdaptersFull, or EngineStopped where the
        fault is not the adapter's.
        """
        async with self._loading:
            try:
                await self._load(name, directory)
            except (AdapterRefused, AdaptersFull, EngineStopped):
                raise
            except ThumbtuneError as error:  # a busy server, another base: no adapter's fault
                raise EngineStopped(f"adapter {name} cannot be loaded now: {error}") from error

    async def _load(self, name: str, directory: Path) -> None:
        placed = await self._put(name, directory)
        await self._meet()
        if placed in self._residents.all() and name in self._residents.names():
            return
        try:
            await self._server.bring(placed)
            evicted = self._residents.add(placed)
        except (AdapterRefused, AdaptersFull):
            await self._take_out(placed)
            raise
        for old in evicted:
            log.info("adapter %s made room for %s", old.name, name)
            await self._take_out(old)

    async def unload(self, name: str) -> None:
        """Take an adapter out after its last running reply; new requests are refused at once.

        Returns early if it is loaded again meanwhile. Raises UnknownAdapter.
        """
        placed = await self._residents.remove(name)
        async with self._loading:
            if placed and placed not in self._residents.all() and self._stopped is None:
                await self._take_out(placed)

    async def warm(self, name: str) -> None:
        """Do nothing more: loading has made the adapter write. Raises UnknownAdapter."""
        if name != BASE:
            self._residents.adapter(name)

    async def _put(self, name: str, directory: Path) -> Placed:
        return await asyncio.to_thread(self._shelf.put, name, directory, self.base.sha256)

    async def _take_out(self, placed: Placed) -> None:
        """Take an adapter out there, then remove its copy."""
        try:
            await self._server.take_out(placed.called)
        except ThumbtuneError as error:
            log.warning("%s stays loaded at vLLM until the next start: %s", placed.name, error)
            return
        await asyncio.to_thread(self._shelf.remove, placed)

    def _refusal(self, answer: httpx.Response) -> ThumbtuneError:
        return self._server.refusal(answer)
