"""The chat: a person's message in, a reply written by one adapter out, both stored.

Invariant: the message is stored before the reply starts, the reply's row before its first token,
with the adapter it is pinned to; whoever stops reading, the reply is written to its end and stored.
Knows no face: the CLI, Discord and the console all speak to this.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace

from bot.registry import AdapterRegistry
from core.errors import InvalidInput, ThumbtuneError
from core.generation import Engine, GenerationRequest, GenerationStream, Message, Sampling
from core.records import Person, Reply, Turn
from core.settings import Settings
from storage.aio import AsyncDatabase
from storage.database import Database

log = logging.getLogger(__name__)


class ReplyInProgress:
    """A reply being written. Iterate for pieces of text; `finished` waits for the stored row."""

    def __init__(self, reply: Reply, stream: GenerationStream, database: AsyncDatabase) -> None:
        self.reply = reply
        self._stream = stream
        self._database = database
        self._pieces: asyncio.Queue[str | None] = asyncio.Queue()
        self._done = asyncio.create_task(self._write(), name=f"reply-{reply.id}")

    def __aiter__(self) -> AsyncIterator[str]:
        return self._read()

    def cancel(self) -> None:
        """Stop writing; what is there is kept, with the finish reason `cancelled`."""
        self._stream.cancel()

    async def finished(self) -> Reply:
        """Wait until the reply is whole and stored. Raises EngineStopped if the engine died."""
        return await asyncio.shield(self._done)

    async def _read(self) -> AsyncIterator[str]:
        while (piece := await self._pieces.get()) is not None:
            yield piece

    async def _write(self) -> Reply:
        reply_id = self.reply.id
        try:
            async for piece in self._stream:
                self._pieces.put_nowait(piece)
            result = await self._stream.result()
            return await self._database.run(
                lambda db: db.replies.finish(
                    reply_id,
                    text=result.text,
                    seed=result.seed,
                    finish_reason=result.finish_reason,
                    prompt_tokens=result.prompt_tokens,
                    tokens=len(result.token_ids),
                    first_token_s=result.first_token_s,
                    total_s=result.total_s,
                )
            )
        except ThumbtuneError as error:
            reason = str(error)
            await self._database.run(lambda db: db.replies.fail(reply_id, reason))
            raise
        finally:
            self._pieces.put_nowait(None)


class ChatService:
    """Conversations with the bot. All methods run on the event loop."""

    def __init__(
        self, database: AsyncDatabase, engine: Engine, registry: AdapterRegistry, settings: Settings
    ) -> None:
        self._database = database
        self._engine = engine
        self._registry = registry
        self._settings = settings
        self._running: set[ReplyInProgress] = set()

    async def open(self, scope: str, person: Person, platform_key: str | None = None) -> str:
        """Open a conversation, or go on with the one `platform_key` names; return its id."""

        def opened(db: Database) -> str:
            db.scopes.ensure(scope)
            return db.conversations.open(scope, person_id=person.id, platform_key=platform_key)

        return await self._database.run(opened)

    async def say(
        self, conversation_id: str, person_id: str, text: str, *, sampling: Sampling | None = None
    ) -> ReplyInProgress:
        """Store a message and start the reply to it.

        Raises InvalidInput for a message that cannot be answered, EngineBusy when the queue is full
        (the message is kept; `answer` tries again).
        """
        clean = self._checked(text)
        await self._database.run(
            lambda db: db.conversations.add_turn(
                conversation_id, role="user", text=clean, person_id=person_id
            )
        )
        return await self.answer(conversation_id, sampling=sampling)

    async def answer(
        self, conversation_id: str, *, sampling: Sampling | None = None
    ) -> ReplyInProgress:
        """Start a reply to the conversation as it stands."""
        turns = await self._history(conversation_id)
        while turns and turns[-1].role == "assistant":
            turns.pop()
        if not turns:
            raise InvalidInput("there is nothing to answer yet; say something first")
        return await self._start(conversation_id, turns, sampling, replaces=None)

    async def again(
        self, reply_id: str, person_id: str, *, sampling: Sampling | None = None
    ) -> ReplyInProgress:
        """Write another version of a reply to the same prompt; the asking is kept as a signal."""
        old = await self._database.run(lambda db: db.replies.get(reply_id))
        await self._database.run(lambda db: db.feedback.regenerate(reply_id, person_id))
        base = sampling or self._sampling()
        return await self._generate(
            old.conversation_id,
            old.scope,
            old.prompt,
            (),
            replace(base, seed=None),
            replaces=old.id,
        )

    async def close(self) -> None:
        """Wait for running replies to be stored (the engine has been told to stop)."""
        await asyncio.gather(*(reply.finished() for reply in self._running), return_exceptions=True)

    async def _history(self, conversation_id: str) -> list[Turn]:
        limit = self._settings.chat.history_messages
        return await self._database.run(
            lambda db: db.conversations.history(conversation_id, limit=limit)
        )

    async def _start(
        self,
        conversation_id: str,
        turns: list[Turn],
        sampling: Sampling | None,
        *,
        replaces: str | None,
    ) -> ReplyInProgress:
        scope = await self._database.run(lambda db: db.scopes.of_conversation(conversation_id))
        persona = scope.persona or self._settings.chat.persona
        system = (Message("system", persona),) if persona else ()
        prompt = system + tuple(Message(turn.role, turn.text) for turn in turns)
        authors = tuple(dict.fromkeys(turn.person_id for turn in turns if turn.person_id))
        return await self._generate(
            conversation_id,
            scope.name,
            prompt,
            authors,
            sampling or self._sampling(),
            replaces=replaces,
        )

    async def _generate(
        self,
        conversation_id: str,
        scope: str,
        prompt: tuple[Message, ...],
        authors: tuple[str, ...],
        sampling: Sampling,
        *,
        replaces: str | None,
    ) -> ReplyInProgress:
        adapter = await self._registry.speaking(scope)
        request = GenerationRequest(
            prompt, adapter=adapter, sampling=sampling, deadline_s=self._settings.serving.deadline_s
        )
        reply = await self._database.run(
            lambda db: db.replies.start(
                conversation_id=conversation_id,
                scope=scope,
                prompt=prompt,
                adapter=adapter,
                sampling=sampling,
                authors=authors,
                replaces=replaces,
            )
        )
        try:
            stream = self._engine.generate(request)
        except ThumbtuneError as error:
            reason = str(error)
            await self._database.run(lambda db: db.replies.fail(reply.id, reason))
            raise
        running = ReplyInProgress(reply, stream, self._database)
        self._running.add(running)
        running._done.add_done_callback(lambda _: self._running.discard(running))
        return running

    def _sampling(self) -> Sampling:
        chat = self._settings.chat
        return Sampling(
            temperature=chat.temperature,
            top_p=chat.top_p,
            top_k=chat.top_k,
            max_tokens=chat.max_tokens,
        )

    def _checked(self, text: str) -> str:
        clean = text.encode("utf-8", "replace").decode().replace("\x00", "").strip()
        limit = self._settings.chat.max_message_chars
        if not clean:
            raise InvalidInput("the message is empty; write something")
        if len(clean) > limit:
            raise InvalidInput(
                f"the message has {len(clean)} characters and {limit} are allowed; "
                "send a shorter one"
            )
        return clean
