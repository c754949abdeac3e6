"""Routes under /channels: messages, typing, reactions, threads.

Each function is one request: look up (which refuses), check, do it through the chat, answer with
JSON.
"""

from __future__ import annotations

from tests.discord_double.drafts import changes, drafted
from tests.discord_double.errors import ApiError, invalid_form, missing_permissions
from tests.discord_double.payloads import channel_json, message_json, user_json
from tests.discord_double.records import (
    ADD_REACTIONS,
    ATTACH_FILES,
    CREATE_THREADS,
    DM,
    EPHEMERAL,
    LOADING,
    MANAGE_MESSAGES,
    READ_HISTORY,
    SEND_IN_THREADS,
    SEND_MESSAGES,
    THREAD,
    Channel,
    Json,
    Message,
)
from tests.discord_double.rest import Answer, Call, Route

PAGE_LIMIT = 100


def _seen_json(call: Call, message: Message) -> Json:
    return message_json(call.world, message, content=call.world.application_sees_content)


def _message(call: Call, *, needs: int = READ_HISTORY) -> Message:
    return call.world.find_message(call.path["channel"], call.path["message"], needs=needs)


def _channel_to_write_in(call: Call) -> Channel:
    needs = ATTACH_FILES if call.files else 0
    channel = call.world.find_channel(call.path["channel"])
    needs |= SEND_IN_THREADS if channel.kind == THREAD else SEND_MESSAGES
    if channel.takes_away & needs or channel.locked:
        raise missing_permissions()
    if channel.recipient is not None and channel.recipient.blocks_bot:
        raise ApiError(403, 50007, "Cannot send messages to this user")
    return channel


def create_message(call: Call) -> Answer:
    """POST a message; the same enforced nonce again gives the first one back."""
    channel = _channel_to_write_in(call)
    message = drafted(call, channel, call.body)
    if call.body.get("enforce_nonce") and message.nonce is not None:
        for earlier in channel.messages.values():
            if earlier.author is call.world.bot and earlier.nonce == message.nonce:
                return _seen_json(call, earlier)
    message.flags &= ~(EPHEMERAL | LOADING)
    return _seen_json(call, call.chat.post(message))


def edit_message(call: Call) -> Answer:
    """PATCH a message of the bot's own."""
    message = _message(call, needs=0)
    if message.author is not call.world.bot:
        raise ApiError(403, 50005, "Cannot edit a message authored by another user")
    call.chat.edit(message, changes(call, message, call.body))
    return _seen_json(call, message)


def delete_message(call: Call) -> Answer:
    """DELETE a message: one's own, or any where the bot may manage them."""
    message = _message(call, needs=0)
    place = message.channel
    unmanaged = place.kind == DM or place.takes_away & MANAGE_MESSAGES
    if message.author is not call.world.bot and unmanaged:
        raise missing_permissions()
    call.chat.delete(message)
    return None


def get_message(call: Call) -> Answer:
    """GET one message."""
    return _seen_json(call, _message(call))


def list_messages(call: Call) -> Answer:
    """GET a page of messages, the newest first."""
    channel = call.world.find_channel(call.path["channel"])
    if channel.takes_away & READ_HISTORY:
        return []
    limit = int(call.query.get("limit", 50))
    if not 1 <= limit <= PAGE_LIMIT:
        raise invalid_form("limit", "NUMBER_TYPE_MAX", "int value should be between 1 and 100.")
    ids = _page(sorted(channel.messages), call.query, limit)
    return [_seen_json(call, channel.messages[i]) for i in reversed(ids)]


def _page(ids: list[int], query: dict[str, str], limit: int) -> list[int]:
    """The part of `ids` (ascending) that the query asks for, ascending."""
    if "after" in query:
        return [i for i in ids if i > int(query["after"])][:limit]
    if "before" in query:
        return [i for i in ids if i < int(query["before"])][-limit:]
    if "around" in query:
        middle = int(query["around"])
        earlier = [i for i in ids if i < middle][-(limit // 2) :]
        return earlier + [i for i in ids if i >= middle][: limit - len(earlier)]
    return ids[-limit:]


def type_in(call: Call) -> Answer:
    """POST that the bot is typing."""
    channel = _channel_to_write_in(call)
    channel.typed_at.append(call.world.clock.now())
    return None


def add_own_reaction(call: Call) -> Answer:
    """PUT the bot's reaction."""
    message = _message(call)
    emoji = call.path["emoji"]
    if emoji not in message.reactions and message.channel.takes_away & ADD_REACTIONS:
        raise missing_permissions()
    if emoji.isascii() and ":" not in emoji:
        raise ApiError(400, 10014, "Unknown Emoji")
    call.chat.react(call.world.bot, message, emoji)
    return None


def remove_own_reaction(call: Call) -> Answer:
    """DELETE the bot's reaction."""
    call.chat.unreact(call.world.bot, _message(call), call.path["emoji"])
    return None


def remove_reaction(call: Call) -> Answer:
    """DELETE somebody's reaction."""
    message = _message(call, needs=MANAGE_MESSAGES)
    call.chat.unreact(call.world.find_user(call.path["user"]), message, call.path["emoji"])
    return None


def list_reactions(call: Call) -> Answer:
    """GET a page of those who reacted, by id."""
    ids = sorted(_message(call).reactions.get(call.path["emoji"], []))
    limit = int(call.query.get("limit", 25))
    later = [i for i in ids if i > int(call.query.get("after", 0))][:limit]
    return [user_json(call.world.users[i]) for i in later]


def thread_on_message(call: Call) -> Answer:
    """POST a thread that hangs on a message."""
    message = _message(call, needs=CREATE_THREADS)
    world = call.world
    thread = call.chat.open_thread(message.channel, call.body["name"], by=world.bot, on=message)
    return channel_json(world, thread)


def thread_without_message(call: Call) -> Answer:
    """POST a thread of its own."""
    parent = call.world.find_channel(call.path["channel"], needs=CREATE_THREADS)
    thread = call.chat.open_thread(parent, call.body["name"], by=call.world.bot)
    return channel_json(call.world, thread)


def get_channel(call: Call) -> Answer:
    """GET a channel, a thread or a DM."""
    return channel_json(call.world, call.world.find_channel(call.path["channel"]))


def edit_channel(call: Call) -> Answer:
    """PATCH a name, or a thread's archived and locked marks."""
    channel = call.world.find_channel(call.path["channel"])
    if channel.kind != THREAD:
        raise missing_permissions()
    for name in ("name", "archived", "locked"):
        setattr(channel, name, call.body.get(name, getattr(channel, name)))
    call.chat.tell_channel("THREAD_UPDATE", channel)
    return channel_json(call.world, channel)


def join_thread(call: Call) -> Answer:
    """PUT the bot into a thread; it is in all of them already."""
    call.world.find_channel(call.path["channel"])
    return None


_ONE = "/channels/{channel}/messages/{message}"
_REACTION = f"{_ONE}/reactions/{{emoji}}"

ROUTES = (
    Route("POST", "/channels/{channel}/messages", create_message),
    Route("GET", "/channels/{channel}/messages", list_messages),
    Route("GET", _ONE, get_message),
    Route("PATCH", _ONE, edit_message),
    Route("DELETE", _ONE, delete_message),
    Route("POST", "/channels/{channel}/typing", type_in),
    Route("PUT", f"{_REACTION}/@me", add_own_reaction),
    Route("DELETE", f"{_REACTION}/@me", remove_own_reaction),
    Route("DELETE", f"{_REACTION}/{{user}}", remove_reaction),
    Route("GET", _REACTION, list_reactions),
    Route("POST", f"{_ONE}/threads", thread_on_message),
    Route("POST", "/channels/{channel}/threads", thread_without_message),
    Route("PUT", "/channels/{channel}/thread-members/@me", join_thread),
    Route("GET", "/channels/{channel}", get_channel),
    Route("PATCH", "/channels/{channel}", edit_channel),
)
