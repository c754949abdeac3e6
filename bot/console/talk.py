"""A conversation as a page shows it: messages, replies with their versions and votes, loose ends.

Invariant: everything comes from the database each time, so a reload, another browser and the
stream's end show the same. Pure reading; what a vote means is bot.feedback's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bot.chat import ChatService
from bot.console.here import Console
from bot.feedback import REASONS
from core.errors import NotFound
from core.records import Conversation, Reply, Turn
from storage.database import Database

LISTED = 200
TURNS = 400
"""So many conversations, and messages of one, are shown."""
_CUT_OFF = "The reply to this was cut off before it was whole. Nothing of it was kept."
_NEVER_BEGUN = "This has no answer yet."


@dataclass(frozen=True, slots=True)
class MessageItem:
    """What a person wrote."""

    text: str
    kind: Literal["message"] = "message"


@dataclass(frozen=True, slots=True)
class UnansweredItem:
    """The end of a conversation that nothing answers, and why."""

    conversation_id: str
    why: str
    kind: Literal["unanswered"] = "unanswered"


@dataclass(frozen=True, slots=True)
class ReplyItem:
    """One version of a reply with what the person said of it; `place` counts versions from 1."""

    reply: Reply
    text: str
    writing: bool
    vote: str
    reasons: tuple[str, ...]
    correction: str
    versions: tuple[str, ...]
    kind: Literal["reply"] = "reply"

    @property
    def place(self) -> int:
        """Which of its versions this is."""
        return self.versions.index(self.reply.id) + 1 if self.reply.id in self.versions else 1

    @property
    def before(self) -> str:
        """Name the version before, or ''."""
        return self.versions[self.place - 2] if self.place > 1 else ""

    @property
    def after(self) -> str:
        """Name the version after, or ''."""
        return self.versions[self.place] if self.place < len(self.versions) else ""

    @property
    def known_reasons(self) -> tuple[str, ...]:
        """Return what may be wrong with a reply, and what the person said besides."""
        return (*REASONS, *(one for one in self.reasons if one not in REASONS))


Item = MessageItem | UnansweredItem | ReplyItem


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation's items, and its title."""

    title: str
    items: tuple[Item, ...]


async def list_talks(console: Console, person_id: str) -> list[Conversation]:
    """Return the person's conversations, newest first."""
    scope = console.scope
    return await console.world.database.run(
        lambda db: db.conversations.list(scope, person_id, limit=LISTED)
    )


async def read_talk(console: Console, conversation_id: str, person_id: str) -> Talk:
    """Return a conversation of this console. Raises NotFound."""
    chat, scope = console.world.chat, console.scope

    def read(db: Database) -> Talk:
        require_here(db, conversation_id, scope)
        turns = db.conversations.history(conversation_id, limit=TURNS)
        replies = db.replies.of_conversation(conversation_id)
        title = next((turn.text for turn in turns if turn.role == "user"), "Conversation")
        return Talk(title[:80], tuple(_items(db, chat, turns, replies, person_id)))

    return await console.world.database.run(read)


async def read_reply(console: Console, reply_id: str, person_id: str) -> ReplyItem:
    """Return one version of a reply of this console. Raises NotFound."""
    chat = console.world.chat

    def read(db: Database) -> ReplyItem:
        return _reply_item(db, chat, own_reply(db, reply_id, console.scope), person_id)

    return await console.world.database.run(read)


def own_reply(db: Database, reply_id: str, scope: str) -> Reply:
    """Return a reply of a scope. Raises NotFound, in the same words, for another scope's."""
    reply = db.replies.get(reply_id)
    if reply.scope != scope:
        raise NotFound(f"reply {reply_id!r}: there is no such reply (it may have expired)")
    return reply


def require_here(db: Database, conversation_id: str, scope: str) -> None:
    """Check that a conversation is of this scope. Raises NotFound."""
    if db.scopes.of_conversation(conversation_id).name != scope:
        raise NotFound(f"conversation {conversation_id!r}: there is no such conversation")


def _items(
    db: Database, chat: ChatService, turns: list[Turn], replies: list[Reply], person_id: str
) -> list[Item]:
    origins = {reply.id: reply.origin for reply in replies}
    being_written = {reply.origin: reply for reply in replies if reply.state == "pending"}
    items: list[Item] = []
    for turn in turns:
        if turn.role == "user" or turn.reply_id is None:
            items.append(MessageItem(turn.text))
            continue
        shown = being_written.pop(origins[turn.reply_id], None) or db.replies.get(turn.reply_id)
        items.append(_reply_item(db, chat, shown, person_id))
    items += [_reply_item(db, chat, reply, person_id) for reply in being_written.values()]
    if items and isinstance(items[-1], MessageItem):
        failed = bool(replies) and replies[-1].state == "failed"
        why = _CUT_OFF if failed else _NEVER_BEGUN
        items.append(UnansweredItem(turns[-1].conversation_id, why))
    return items


def _reply_item(db: Database, chat: ChatService, reply: Reply, person_id: str) -> ReplyItem:
    said = [row for row in db.feedback.of_reply(reply.id) if row.person_id == person_id]
    vote = next((row for row in said if row.kind in ("up", "down")), None)
    fixed = next((row.text for row in said if row.kind == "correction"), None)
    writing = chat.running(reply.id)
    remembered = chat.memory.get(reply.id)
    held = remembered.reply.text if remembered and not reply.kept else reply.text
    return ReplyItem(
        reply=reply,
        text=writing.text if writing else held,
        writing=reply.state == "pending",
        vote=vote.kind if vote else "",
        reasons=vote.reasons if vote else (),
        correction=fixed or "",
        versions=tuple(one.id for one in db.replies.versions(reply.id)),
    )
