"""Replies kept in memory only, for as long as there is room: what 🔁, ◀ ▶ and retry stand on.

Invariant: nothing here is ever written anywhere; whoever forgets, opts out or deletes a message is
gone from here at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from core.generation import Message, Sampling
from core.records import Reply

GONE = 5000
"""Ids of deleted messages that are known for a while: a question may be on its way from one."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A question to be answered, built by a face from its platform's own history.

    `authors` are the ids of the people who wrote in `prompt`, `sources` the platform's ids of the
    messages it was made from. `kept` says whether prompt and reply may be stored. `adapter` None
    takes whoever speaks in the scope.
    """

    scope: str
    conversation_id: str
    prompt: tuple[Message, ...]
    authors: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    sampling: Sampling | None = None
    kept: bool = True
    adapter: str | None = None
    replaces: str | None = None
    in_history: bool = True


@dataclass(frozen=True, slots=True)
class Remembered:
    """A question and, once it is whole, the reply with its text."""

    ask: Ask
    reply: Reply


class ReplyMemory:
    """The newest `limit` replies, by id. All methods run on the event loop."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: OrderedDict[str, Remembered] = OrderedDict()
        self._gone: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def put(self, ask: Ask, reply: Reply) -> None:
        """Remember a reply, or what became of it; the oldest makes room.

        What rests on a message that was deleted meanwhile is not taken.
        """
        if self.gone(ask.sources):
            return
        self._held[reply.id] = Remembered(replace(ask, replaces=reply.replaces), reply)
        self._held.move_to_end(reply.id)
        while len(self._held) > self._limit:
            self._held.popitem(last=False)

    def get(self, reply_id: str) -> Remembered | None:
        """Return what is remembered of a reply, or None."""
        return self._held.get(reply_id)

    def gone(self, message_ids: Iterable[str]) -> bool:
        """Say whether any of these platform messages was deleted a while ago."""
        return any(message_id in self._gone for message_id in message_ids)

    def forget_person(self, person_id: str) -> int:
        """Drop every reply in whose prompt the person wrote; return how many."""
        return self._drop(lambda held: person_id in held.ask.authors)

    def forget_source(self, message_id: str) -> int:
        """Drop every reply made from this platform message, now or soon; return how many."""
        self._gone[message_id] = None
        while len(self._gone) > GONE:
            self._gone.popitem(last=False)
        return self._drop(lambda held: message_id in held.ask.sources)

    def forget_replies(self, reply_ids: frozenset[str]) -> int:
        """Drop these replies; return how many there were."""
        return self._drop(lambda held: held.reply.id in reply_ids)

    def forget_conversations(self, conversation_ids: frozenset[str]) -> int:
        """Drop every reply of these conversations; return how many."""
        return self._drop(lambda held: held.ask.conversation_id in conversation_ids)

    def _drop(self, wanted: Callable[[Remembered], bool]) -> int:
        gone = [reply_id for reply_id, held in self._held.items() if wanted(held)]
        for reply_id in gone:
            del self._held[reply_id]
        return len(gone)
