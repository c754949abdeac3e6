"""Deeds in channels: each changes the world and tells the gateway, whoever does it.

Invariant: there is no other way to change a message, so what a client was told and what GET returns
agree. Who may do it is settled before; requests and people share these functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from tests.discord_double.errors import ApiError
from tests.discord_double.gateway import (
    DIRECT_MESSAGES,
    DIRECT_REACTIONS,
    GUILD_MESSAGES,
    GUILD_REACTIONS,
    GUILDS,
    MESSAGE_CONTENT,
    Gateway,
    Payload,
)
from tests.discord_double.payloads import channel_json, emoji_json, member_json, message_json
from tests.discord_double.records import DM, THREAD, Channel, Json, Message, User
from tests.discord_double.state import World

MENTION = re.compile(r"<@!?(\d+)>")


class Chat:
    """What people and the bot do to messages, reactions and threads."""

    def __init__(self, world: World, gateway: Gateway) -> None:
        self._world = world
        self._gateway = gateway

    # -- messages

    def post(self, message: Message) -> Message:
        """Put `message` into its channel and announce it."""
        self.keep(message)
        self._tell_message("MESSAGE_CREATE", message)
        return message

    def keep(self, message: Message) -> Message:
        """Settle whom it mentions, and store it unless only one person sees it."""
        message.mentions = self._mentioned(message)
        message.mentions_everyone = "@everyone" in message.content and _may_ping(
            message, "everyone"
        )
        message.remember(self._world.clock.now())
        if not message.ephemeral:
            message.channel.messages[message.id] = message
        return message

    def edit(self, message: Message, changes: Json) -> Message:
        """Set the fields named in `changes` and announce it."""
        for field, value in changes.items():
            setattr(message, field, value)
        message.mentions = self._mentioned(message)
        message.edited_at = self._world.clock.now()
        message.remember(message.edited_at)
        if not message.ephemeral:
            self._tell_message("MESSAGE_UPDATE", message)
        return message

    def delete(self, message: Message) -> None:
        """Take `message` away."""
        message.deleted = True
        if message.channel.messages.pop(message.id, None) is not None:
            self._tell(message.channel, "MESSAGE_DELETE", {"id": str(message.id)})

    # -- reactions

    def react(self, user: User, message: Message, emoji: str) -> None:
        """Add `user`'s reaction once."""
        ids = message.reactions.setdefault(emoji, [])
        if user.id in ids:
            return
        ids.append(user.id)
        extra: Json = {"message_author_id": str(message.author.id)}
        guild = message.channel.guild
        if guild is not None and user.id in guild.members:
            extra["member"] = member_json(guild, user)
        self._tell_reaction("MESSAGE_REACTION_ADD", user, message, emoji, extra=extra)

    def unreact(self, user: User, message: Message, emoji: str) -> None:
        """Take `user`'s reaction back; 10014 where there is none."""
        ids = message.reactions.get(emoji, [])
        if user.id not in ids:
            raise ApiError(404, 10014, "Unknown Emoji")
        ids.remove(user.id)
        if not ids:
            del message.reactions[emoji]
        self._tell_reaction("MESSAGE_REACTION_REMOVE", user, message, emoji, extra={})

    # -- channels

    def open_thread(
        self, parent: Channel, name: str, *, by: User, on: Message | None = None
    ) -> Channel:
        """Open a public thread, on a message or on none."""
        thread_id = on.id if on is not None else self._world.clock.next_id()
        if thread_id in self._world.channels:
            raise ApiError(400, 160004, "A thread has already been created for this message")
        now = self._world.clock.now()
        thread = Channel(thread_id, THREAD, name, now, parent.guild, parent=parent, opened_by=by)
        self._world.add_channel(thread)
        self.tell_channel("THREAD_CREATE", thread, newly_created=True)
        return thread

    def tell_channel(self, event: str, channel: Channel, **extra: bool) -> None:
        """Announce `channel` as it is now."""
        data = channel_json(self._world, channel) | extra
        if self._world.bot_sees(channel):
            self._gateway.dispatch(event, data, intent=GUILDS)

    # -- telling

    def _tell_message(self, event: str, message: Message) -> None:
        guild, author = message.channel.guild, message.author
        extra: Json = {}
        if guild is not None and author.id in guild.members:
            extra["member"] = member_json(guild, author, with_user=False)

        def as_seen(intents: int) -> Json:
            content = bool(intents & MESSAGE_CONTENT)
            return message_json(self._world, message, content=content) | extra

        self._tell(message.channel, event, as_seen)

    def _tell_reaction(
        self, event: str, user: User, message: Message, emoji: str, *, extra: Json
    ) -> None:
        data: Json = {
            "user_id": str(user.id),
            "message_id": str(message.id),
            "emoji": emoji_json(emoji),
            "type": 0,
            "burst": False,
        }
        self._tell(message.channel, event, data | extra, reaction=True)

    def _tell(self, channel: Channel, event: str, data: Payload, *, reaction: bool = False) -> None:
        if not self._world.bot_sees(channel):
            return
        place: Json = {"channel_id": str(channel.id), "channel_type": channel.kind}
        if channel.guild is not None:
            place["guild_id"] = str(channel.guild.id)
        intents = (GUILD_MESSAGES, DIRECT_MESSAGES, GUILD_REACTIONS, DIRECT_REACTIONS)
        intent = intents[2 * reaction + (channel.kind == DM)]
        self._gateway.dispatch(
            event, lambda held: (data(held) if callable(data) else data) | place, intent=intent
        )

    # -- mentions

    def _mentioned(self, message: Message) -> list[User]:
        named = [int(i) for i in MENTION.findall(message.content)]
        allowed = message.allowed_mentions or {}
        explicit = {int(i) for i in allowed.get("users", [])}
        pinged = [i for i in named if i in explicit or _may_ping(message, "users")]
        if message.reply_to is not None and allowed.get("replied_user", _pings_by_default(message)):
            pinged.append(message.reply_to.author.id)
        return self._known(pinged)

    def _known(self, ids: Iterable[int]) -> list[User]:
        unique = dict.fromkeys(ids)
        return [self._world.users[i] for i in unique if i in self._world.users]


def _may_ping(message: Message, kind: str) -> bool:
    if message.allowed_mentions is None:
        return True
    return kind in message.allowed_mentions.get("parse", [])


def _pings_by_default(message: Message) -> bool:
    return message.allowed_mentions is None
