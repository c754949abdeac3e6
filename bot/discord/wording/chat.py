"""What the chat says besides the replies themselves. Notices are small text under a reply."""

from __future__ import annotations

from math import ceil

CUT_AT_LENGTH = "-# This reply reached its length limit."
"""Under a reply that the length limit ended."""
CUT_AT_TIME = "-# This reply was cut because it took too long."
"""Under a reply that the time limit ended."""
STOPPED = "-# Stopped."
"""Under a reply that somebody stopped."""
NOTHING_TO_SAY = "-# Nothing came to my mind. Press 🔁 for another try."
"""In the place of a reply without a word."""
ATTACHMENT_LEFT = "-# I can only read text, so I left the attachment aside."
"""Under the reply to a message with words and an attachment."""

ATTACHMENT_ONLY = (
    "I can only read text, so I could not make anything of that attachment. "
    "Tell me in words and I will gladly answer."
)
"""Answers a message that holds an attachment and no words."""
EMPTY = "I am here. Write something after my name and I will answer."
"""Answers a mention without any words."""
CONTENT_HIDDEN = (
    "I could not see any text in that message. Mention me in it, reply to one of my messages, or "
    "write to me directly."
)
"""Answers a message whose text Discord hides from the bot."""
BROKE_OFF = (
    "-# ⚠️ I broke off here because something failed on my side. Nothing else was lost; "
    "press “Try again”."
)
"""Under a reply that failed half-way, with “Try again”."""
RESTARTED = "-# ⚠️ I was restarted while I wrote this. Press “Try again”."
"""Under a reply that a restart cut off, with “Try again”."""
ENGINE_FAILED = (
    "I am sorry, something failed on my side before I could answer. "
    "Your message is still here: press “Try again” in a moment."
)
"""In the place of a reply that failed before its first word, with “Try again”."""
QUESTION_GONE = (
    "I no longer have that question: it was in my memory only, and I was restarted. "
    "Please ask it again."
)
"""Told to the one who pressed “Try again” when the question is gone."""
STILL_WRITING = "I am still writing here. Wait for the end, or press ⏹."
"""Told to the one who pressed a button of a reply that is being rewritten."""
NOT_RUNNING = "This reply has already ended."
"""Told to the one who pressed ⏹ too late."""
NOT_YOURS_TO_STOP = "Only the person who asked, or an admin, can stop this reply."
"""Told to the one who pressed ⏹ on the reply to somebody else."""
VERSION_GONE = (
    "That version was in my memory only and is gone. What you see is all that is left of it."
)
"""Told to the one who pressed ◀ or ▶ when that version is gone."""
AGAIN_GONE = (
    "I no longer have what this reply answered: it was in my memory only. Ask again, and I will "
    "write you a new one."
)
"""Told to the one who pressed 🔁 when the question is gone."""
AGAIN_FAILED = "I am sorry, that try failed on my side. The version from before is still there."
"""Told to the one who pressed 🔁 when the new version failed."""
NOTHING_TO_REPLY_TO = "I can only answer what a person wrote, and I see no such text there."
"""Told to the one who used “Reply to this” on a message without words of a person."""
LEAVING = "I am being restarted. Please try again in a minute."
"""Told to the one who uses a command or button while the bot is stopping."""
BLOCKED = "The people who look after this server have asked me not to answer you."
"""Told to a blocked person who uses a command or button."""
RESET = (
    "Done. From here on I no longer look at what was said before in this place; "
    "nothing was deleted."
)
"""Told to the one who used /reset."""


def queued(ahead: int) -> str:
    """Shown in the place of a reply that waits for its turn, and updated as the line moves."""
    line = "one reply is" if ahead == 1 else f"{ahead} replies are"
    return f"-# ⏳ {line[0].upper()}{line[1:]} before yours."


def busy(waiting: int) -> str:
    """Sent when so many replies wait that no more are taken."""
    return (
        f"I am too busy right now: {waiting} replies are waiting. "
        "Your message is still here: press “Try again” in a moment."
    )


def again_busy(waiting: int) -> str:
    """Told to the one who pressed 🔁 when no more replies are taken."""
    return f"I am too busy right now: {waiting} replies are waiting. Press 🔁 again in a moment."


def too_long(length: int, limit: int) -> str:
    """Sent for a message longer than the operator allows."""
    return (
        f"That is {length} characters, and I can read {limit} at a time. "
        "Please send it in shorter pieces."
    )


def slow_down(wait_s: float) -> str:
    """Sent once when a person writes more messages a minute than are answered."""
    return f"That is more than I can answer at once. I am ready for you again in {ceil(wait_s)} s."


def channel_full(wait_s: float) -> str:
    """Sent once when a channel has more messages a minute than are answered."""
    return f"This channel is busier than I can follow. I am back in {ceil(wait_s)} s."


def asked(question: str) -> str:
    """The first line of an answer to /chat: the question, which Discord does not show."""
    return f"> {question}"
