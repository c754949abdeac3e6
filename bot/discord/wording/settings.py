"""What `/settings` says. Only the one who asked sees it; the log channel is told of each use."""

from __future__ import annotations

from collections.abc import Sequence

NOTHING_GIVEN = "the wider setting"
"""Stands for a value that is not set here."""
HEAD_SERVER = "**This server**"
"""Above the server's settings in `/settings show`."""
NO_CONTENT = (
    "⚠️ I cannot do that yet: without Discord's message content intent I only see messages that "
    "mention me, reply to me or are sent to me directly. Whoever runs me can switch it on in the "
    "developer portal (Bot, Message Content Intent) and start me again. The setting is kept until "
    "then."
)
"""Told when a channel should be listened to as a whole and the intent is missing."""
TRAINING_ON = (
    "Training is switched on here. What people who opted in (`/privacy opt-in`) write to me is "
    "kept from now on, and I may learn from it; of everybody else I keep votes and ids only."
)
"""Told after `/settings training on`."""
NO_PERMISSION = (
    "⚠️ For now nothing is kept or trained on all the same: whoever runs me has not stated that "
    "they hold Discord's permission to train on what is written here (`training_permission` in "
    "the settings file)."
)
"""Added to that where the operator holds no permission."""
TRAINING_OFF = (
    "Training is switched off here. From now on I keep nobody's words on this server. What was "
    "kept before stays until its retention time ends, its author opts out, or I am removed from "
    "the server."
)
"""Told after `/settings training off`."""
CONFIRM_RESET = (
    "This takes every setting of this server and of its channels back to the default: personas, "
    "style, listening, training, roles, the log channel and who is blocked. Shall I?"
)
"""Asked before `/settings reset-all` is carried out."""
RESET_NOW = "Yes, reset everything"
"""The button that confirms it."""
KEEP = "No, leave it"
"""The button that calls it off."""
WAS_RESET = "Done. Every setting here is back to its default, and training is off."
"""Told after the reset."""
LEFT_ALONE = "Nothing was changed."
"""Told when the reset is called off."""
NONE_BLOCKED = "Nobody is blocked on this server."
"""Told after `/settings blocked` where that is so."""
NOT_MYSELF = "That is me. I cannot ignore myself."
"""Told when somebody wants the bot itself blocked."""
PERSONA_TITLE = "Who I am"
"""The title of the form for a persona."""
PERSONA_LABEL = "Persona; leave it empty for the wider setting"
"""The label of its one field."""
CHANNEL_GONE = "That channel is gone, so nothing was changed."
"""Told to the one who sent a form about a channel that was deleted meanwhile."""
DEFAULTS = {"persona": "the model's own"}
"""How a default reads."""
STYLE = {"temperature": "Temperature", "max_tokens": "Longest reply"}
"""What the parts of a style are called."""
LISTENING = {
    "mentions": "I answer when I am mentioned, replied to or used by a command",
    "all": "I answer every message",
    "join": "I answer when spoken to, and now and then join in",
    "off": "I answer commands only",
}
"""What each way of listening means."""
SOURCES = {
    "channel": "set for this channel",
    "server": "set for this server",
    "operator": "the operator's setting",
    "default": "the default",
}
"""Where a value in `/settings show` comes from."""


def line(name: str, value: str, source: str) -> str:
    """One line of `/settings show`."""
    return f"{name}: **{value}** ({source})"


def changed(name: str, place: str, old: str, new: str) -> str:
    """Told after a setting was changed."""
    if old == new:
        return f"{name} for {place} was {old} already."
    return f"{name} for {place}: {old} → **{new}**"


def head_channel(channel: str) -> str:
    """Above a channel's settings in `/settings show`."""
    return f"**In {channel}**"


def training(on: bool, permitted: bool) -> str:
    """The value of training in `/settings show`."""
    if not on:
        return "off"
    return "on" if permitted else "on, but nothing is kept: the operator holds no permission"


def one_in(count: int) -> str:
    """How often something happens by chance."""
    return f"one message in {count}" if count else "never"


def roles(area: str, mentions: Sequence[str]) -> str:
    """Which roles may use the commands of an area, beside who manages the server."""
    named = ", ".join(mentions) if mentions else "no role"
    return f"Commands for {area}: {named}, beside those with “Manage Server”."


def role_known(area: str, role: str) -> str:
    """Told when a role to add is there already."""
    return f"{role} may use the commands for {area} already."


def role_unknown(area: str, role: str) -> str:
    """Told when a role to remove is not there."""
    return f"{role} is not among the roles for {area}."


def log_blind(channel: str) -> str:
    """Told when the bot may not write in the log channel."""
    return f"⚠️ I may not write in {channel}: give me “View Channel” and “Send Messages” there."


def blocked(user: str) -> str:
    """Told after somebody was blocked."""
    return f"I no longer answer {user} on this server. `/settings unblock` takes it back."


def unblocked(user: str) -> str:
    """Told after somebody was unblocked."""
    return f"I answer {user} again."


def not_blocked(user: str) -> str:
    """Told when somebody to unblock was not blocked."""
    return f"{user} was not blocked."


def block_list(users: Sequence[str]) -> str:
    """Told after `/settings blocked`."""
    return f"I do not answer: {', '.join(users)}"


def too_long(limit: int) -> str:
    """Told when a reply is to be longer than the operator's model can hold."""
    return f"The model here can hold {limit} tokens in all, so a reply must be shorter than that."


def persona_too_long(length: int, limit: int) -> str:
    """Told when a persona is longer than may be."""
    return f"That persona has {length} characters and {limit} are allowed. Please shorten it."
