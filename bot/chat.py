"""The chat: a person's message in, a reply written by one adapter out, both stored.

Invariant: the message is stored before the reply starts, the reply's row before its first token,
with the adapter it is pinned to; whoever stops reading, the reply is written to its end and stored.
What may not be kept (`Ask.kept`) leaves a row without words; its text is in memory only. Knows no
face: the CLI, Discord and the console all speak to this.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from bot.canary import CanaryService, Voice
from bot.feedback import CONSENT_PRESUMED
from bot.memory import Ask, ReplyMemory
from bot.registry import AdapterRegistry
from core.errors import InvalidInput, NotFound, NotRemembered, ThumbtuneError
from core.generation import Engine, GenerationRequest, GenerationStream, Message, Sampling
from core.records import Person, Reply, Scope, Turn
from core.settings import Settings
from storage.aio import AsyncDatabase
from storage.database import Database

log = logging.getLogger(__name__)


class ReplyInProgress:
    """A reply being written. Iterate for pieces of text; `finished` waits for the stored row.

    One reader takes the pieces; any number may `follow`. `text` is what was written so far.
    """

    def __init__(
        self, reply: Reply, ask: Ask, stream: GenerationStream, database: AsyncDatabase
    ) -> None:
        self.reply = reply
        self._ask = ask
        self._stream = stream
        self._database = database
        self._pieces: asyncio.Queue[str | None] = asyncio.Queue()
        self.text = ""
        self._news = asyncio.Event()
        self._done = asyncio.create_task(self._write(), name=f"reply-{reply.id}")

    def __aiter__(self) -> AsyncIterator[str]:
        return self._read()

    def ahead(self) -> int:
        """Return how many replies are to begin before this one; 0 once it is its turn."""
        return self._stream.ahead()

    def cancel(self) -> None:
        """Stop writing; what is there is kept, with the finish reason `cancelled`."""
        self._stream.cancel()

    async def finished(self) -> Reply:
        """Wait until the reply is whole and stored; its text is there, stored or not.

        Raises EngineStopped if the engine died, NotFound if the reply was deleted meanwhile.
        """
        return await asyncio.shield(self._done)

    async def follow(self) -> AsyncIterator[str]:
        """Yield what was written so far, now and each time it has grown, until the end."""
        while not self._done.done():
            news = self._news
            yield self.text
            await news.wait()

    async def _read(self) -> AsyncIterator[str]:
        while (piece := await self._pieces.get()) is not None:
            yield piece

    async def _write(self) -> Reply:
        reply_id, in_history = self.reply.id, self._ask.in_history
        try:
            async for piece in self._stream:
                self._pieces.put_nowait(piece)
                self.text += piece
                self._tell()
            result = await self._stream.result()
            stored = await self._database.run(
                lambda db: db.replies.finish(
                    reply_id,
                    text=result.text,
                    seed=result.seed,
                    finish_reason=result.finish_reason,
                    prompt_tokens=result.prompt_tokens,
                    tokens=len(result.token_ids),
                    first_token_s=result.first_token_s,
                    total_s=result.total_s,
                    in_history=in_history,
                )
            )
            return replace(stored, text=result.text, prompt=self._ask.prompt)
        except NotFound:
            raise
        except ThumbtuneError as error:
            reason = str(error)
            await self._database.run(lambda db: db.replies.fail(reply_id, reason))
            raise
        finally:
            self._pieces.put_nowait(None)
            asyncio.get_running_loop().call_soon(self._tell)  # once `_done` is

    def _tell(self) -> None:
        """Wake everybody who follows."""
        news, self._news = self._news, asyncio.Event()
        news.set()


class ChatService:
    """Conversations with the bot. All methods run on the event loop.

    `memory` holds the newest replies, stored or not.
    """

    def __init__(
        self,
        database: AsyncDatabase,
        engine: Engine,
        registry: AdapterRegistry,
        canary: CanaryService,
        settings: Settings,
    ) -> None:
        self._database = database
        self._engine = engine
        self._registry = registry
        self._canary = canary
        self._settings = settings
        self._running: set[ReplyInProgress] = set()
        self.memory = ReplyMemory(settings.discord.remembered_replies)

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
        clean = self.checked(text)
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
        scope = await self._database.run(lambda db: db.scopes.of_conversation(conversation_id))
        system = self._persona(scope)
        return await self.write(
            Ask(
                scope=scope.name,
                conversation_id=conversation_id,
                prompt=system + tuple(Message(turn.role, turn.text) for turn in turns),
                authors=tuple(dict.fromkeys(turn.person_id for turn in turns if turn.person_id)),
                sampling=sampling,
            )
        )

    async def again(
        self, reply_id: str, person_id: str, *, sampling: Sampling | None = None
    ) -> ReplyInProgress:
        """Write another version of a reply to the same prompt; the asking is kept as a signal.

        Raises NotRemembered if the prompt was in memory only and is gone.
        """
        ask = await self.asked(reply_id)
        return await self.again_as(
            replace(ask, sampling=sampling or ask.sampling, replaces=reply_id), person_id
        )

    async def again_as(self, ask: Ask, person_id: str) -> ReplyInProgress:
        """Write another version of `ask.replaces` from a prompt that was built anew."""
        replaced = ask.replaces
        if replaced is None:
            raise InvalidInput("the question does not say which reply it replaces")
        fresh = replace(ask.sampling or self.sampling(), seed=None)
        writing = await self.write(replace(ask, sampling=fresh, adapter=None))
        await self._database.run(lambda db: db.feedback.regenerate(replaced, person_id))
        return writing

    async def asked(self, reply_id: str) -> Ask:
        """Return what a reply answered, from memory or the database. Raises as `recall` does."""
        remembered = self.memory.get(reply_id)
        if remembered:
            return remembered.ask
        old = await self.recall(reply_id)
        authors, sources = await self._database.run(
            lambda db: (db.replies.authors(reply_id), db.replies.sources(reply_id))
        )
        return Ask(
            scope=old.scope,
            conversation_id=old.conversation_id,
            prompt=old.prompt,
            authors=authors,
            sources=sources,
            sampling=old.sampling,
            kept=old.kept,
            in_history=not sources,  # a platform's messages have their history there
        )

    async def recall(self, reply_id: str) -> Reply:
        """Return a reply with its text, from memory or the database.

        Raises NotFound, or NotRemembered where the text was in memory only and is gone.
        """
        remembered = self.memory.get(reply_id)
        if remembered:
            return remembered.reply
        stored = await self._database.run(lambda db: db.replies.get(reply_id))
        if not stored.kept:
            raise NotRemembered(f"reply {reply_id!r}: its text was kept in memory only and is gone")
        return stored

    async def write(self, ask: Ask) -> ReplyInProgress:
        """Store the reply's row and start writing it.

        What people took back since the question was built is not kept. Raises EngineBusy,
        EngineStopped or UnknownAdapter; the row then says why it failed.
        """
        voice = await self._canary.voice(ask)
        sampling = ask.sampling or self.sampling()
        reply = await self._begin(ask, voice, sampling)
        ask = replace(ask, kept=reply.kept)
        self.memory.put(ask, replace(reply, prompt=ask.prompt))
        request = GenerationRequest(
            ask.prompt,
            adapter=voice.adapter,
            sampling=sampling,
            deadline_s=self._settings.serving.deadline_s,
        )
        try:
            await self._registry.ensure_resident(voice.adapter)
            stream = self._engine.generate(request)
        except (ThumbtuneError, asyncio.CancelledError) as error:
            reason = str(error) or "given up before it began"
            await self._database.run(lambda db: db.replies.fail(reply.id, reason))
            raise
        return self._follow(ReplyInProgress(reply, ask, stream, self._database), ask)

    def running(self, reply_id: str) -> ReplyInProgress | None:
        """Return a reply that is being written here, or None."""
        return next((one for one in self._running if one.reply.id == reply_id), None)

    async def delete(self, conversation_id: str, *, actor: str) -> dict[str, int]:
        """Delete a conversation, stopping what is being written in it; return counts by table."""
        writing = [one for one in self._running if one.reply.conversation_id == conversation_id]
        for one in writing:
            one.cancel()
        await asyncio.gather(*(one.finished() for one in writing), return_exceptions=True)
        self.memory.forget_conversations(frozenset((conversation_id,)))
        return await self._database.run(
            lambda db: db.conversations.delete(conversation_id, actor=actor)
        )

    async def close(self) -> None:
        """Wait for running replies to be stored (the engine has been told to stop)."""
        await asyncio.gather(*(reply.finished() for reply in self._running), return_exceptions=True)

    async def persona(self, scope: str) -> tuple[Message, ...]:
        """Return the system message of a scope, made if new, where nobody gave another."""
        return self._persona(await self._database.run(lambda db: db.scopes.ensure(scope)))

    def sampling(self) -> Sampling:
        """Return how tokens are drawn where nobody said otherwise."""
        chat = self._settings.chat
        return Sampling(
            temperature=chat.temperature,
            top_p=chat.top_p,
            top_k=chat.top_k,
            max_tokens=chat.max_tokens,
        )

    def checked(self, text: str) -> str:
        """Return a message as it may be answered. Raises InvalidInput if empty or too long."""
        clean = storable(text).strip()
        limit = self._settings.chat.max_message_chars
        if not clean:
            raise InvalidInput("the message is empty; write something")
        if len(clean) > limit:
            raise InvalidInput(
                f"the message has {len(clean)} characters and {limit} are allowed; "
                "send a shorter one"
            )
        return clean

    def _persona(self, scope: Scope) -> tuple[Message, ...]:
        persona = scope.persona or self._settings.chat.persona
        return (Message("system", persona),) if persona else ()

    async def _begin(self, ask: Ask, voice: Voice, sampling: Sampling) -> Reply:
        """Store the reply's row, with its part in a trial."""
        gone = self.memory.gone(ask.sources)

        def begun(db: Database) -> Reply:
            with db.transaction():
                reply = db.replies.start(
                    conversation_id=ask.conversation_id,
                    scope=ask.scope,
                    prompt=ask.prompt,
                    adapter=voice.adapter,
                    sampling=sampling,
                    authors=ask.authors,
                    replaces=ask.replaces,
                    kept=ask.kept and not gone and not _taken_back(db, ask.authors),
                    sources=ask.sources,
                )
                if voice.part:
                    db.canary.take_part(reply.id, voice.part)
                return reply

        return await self._database.run(begun)

    def _follow(self, running: ReplyInProgress, ask: Ask) -> ReplyInProgress:
        """Remember the reply once it is whole, unless it was forgotten meanwhile."""

        def ended(task: asyncio.Task[Reply]) -> None:
            self._running.discard(running)
            whole = not task.cancelled() and task.exception() is None
            if whole and self.memory.get(running.reply.id):
                self.memory.put(ask, task.result())

        self._running.add(running)
        running._done.add_done_callback(ended)
        return running

    async def _history(self, conversation_id: str) -> list[Turn]:
        limit = self._settings.chat.history_messages
        return await self._database.run(
            lambda db: db.conversations.history(conversation_id, limit=limit)
        )


def storable(text: str) -> str:
    """Return a text without what neither the database nor a tokenizer takes: NUL, halves of
    surrogate pairs.
    """
    return text.encode("utf-8", "replace").decode().replace("\x00", "")


def _taken_back(db: Database, person_ids: Sequence[str]) -> bool:
    """Say whether any of these people refuses, or was forgotten, by now."""
    people = [db.people.get(person_id) for person_id in person_ids]
    return any(one.consent == "refused" and one.platform not in CONSENT_PRESUMED for one in people)
