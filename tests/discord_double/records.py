"""What the double remembers: people, servers, channels, messages.

Plain mutable records that refer to each other; ids are ints here and become strings in payloads.
They know nothing of JSON, of sockets or of who may see what.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

TEXT, DM, THREAD = 0, 1, 11
"""Kinds of channels, by Discord's numbers."""

DEFAULT, REPLY, CHAT_COMMAND, MENU_COMMAND = 0, 19, 20, 23
"""Types of messages, by Discord's numbers."""

EPHEMERAL, LOADING, COMPONENTS_V2 = 1 << 6, 1 << 7, 1 << 15
"""Flags of messages."""

ADD_REACTIONS, VIEW_CHANNEL, SEND_MESSAGES = 1 << 6, 1 << 10, 1 << 11
MANAGE_MESSAGES, ATTACH_FILES, READ_HISTORY = 1 << 13, 1 << 15, 1 << 16
CREATE_THREADS, SEND_IN_THREADS = 1 << 35, 1 << 38
EVERYONE_MAY = (
    ADD_REACTIONS
    | VIEW_CHANNEL
    | SEND_MESSAGES
    | 1 << 14  # embed links
    | ATTACH_FILES
    | READ_HISTORY
    | 1 << 31  # use application commands
    | CREATE_THREADS
    | SEND_IN_THREADS
)
"""What every member of a server may do, and the bot too."""

ADMINISTRATOR = 1 << 3
EVERYTHING = (1 << 50) - 1
"""What an administrator's permissions amount to."""


@dataclass(slots=True, eq=False)
class User:
    """A person or a bot."""

    id: int
    name: str
    bot: bool = False
    blocks_bot: bool = False


@dataclass(slots=True, eq=False)
class Guild:
    """A server; its members by id, in the order they came."""

    id: int
    name: str
    owner: User
    admin_role_id: int
    created_at: float
    members: dict[int, User] = field(default_factory=dict)
    admins: set[int] = field(default_factory=set)
    channels: list[Channel] = field(default_factory=list)
    has_bot: bool = True

    def permissions_of(self, user: User) -> int:
        """What `user` may do in the server."""
        if user is self.owner or user.id in self.admins:
            return EVERYTHING
        return EVERYONE_MAY


@dataclass(slots=True, eq=False)
class Channel:
    """A text channel, a thread or a DM; `denied` are permissions that it takes from everyone."""

    id: int
    kind: int
    name: str
    created_at: float
    guild: Guild | None = None
    recipient: User | None = None
    parent: Channel | None = None
    opened_by: User | None = None
    archived: bool = False
    locked: bool = False
    denied: int = 0
    messages: dict[int, Message] = field(default_factory=dict)
    typed_at: list[float] = field(default_factory=list)

    @property
    def takes_away(self) -> int:
        """The permissions that it denies; a thread's are its parent's."""
        return (self.parent or self).denied


@dataclass(slots=True, eq=False)
class Attachment:
    """A file on a message, with its bytes."""

    id: int
    filename: str
    data: bytes
    content_type: str = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Revision:
    """What a message said at one time."""

    at: float
    content: str
    components: list[Json]


@dataclass(slots=True, eq=False)
class Message:
    """A message; `reactions` holds the ids of people by emoji, `history` all that it has said."""

    id: int
    channel: Channel
    author: User
    content: str
    created_at: float
    kind: int = DEFAULT
    flags: int = 0
    edited_at: float | None = None
    embeds: list[Json] = field(default_factory=list)
    components: list[Json] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)
    mentions: list[User] = field(default_factory=list)
    mentions_everyone: bool = False
    reply_to: Message | None = None
    reactions: dict[str, list[int]] = field(default_factory=dict)
    allowed_mentions: Json | None = None
    nonce: str | None = None
    interaction_metadata: Json | None = None
    deleted: bool = False
    history: list[Revision] = field(default_factory=list)

    @property
    def ephemeral(self) -> bool:
        """Whether only one person sees it."""
        return bool(self.flags & EPHEMERAL)

    def remember(self, at: float) -> None:
        """Add what it says now to its history."""
        self.history.append(Revision(at, self.content, list(self.components)))
