"""What the chat says besides the replies themselves. Notices are small text under a reply."""

from __future__ import annotations

from math import ceil

CUT_AT_LENGTH = "-# This reply reached its length limit."
CUT_AT_TIME = "-# This reply was cut because it took too long."
STOPPED = "-# Stopped."
NOTHING_TO_SAY = "-# Nothing came to my mind. Press 🔁 for another try."
ATTACHMENT_LEFT = "-# I can only read text, so I left the attachment aside."

ATTACHMENT_ONLY = (
    "I can only read text, so I could not make anything of that attachment. "
    "Tell me in words and I will gladly answer."
)
EMPTY = "I am here. Write something after my name and I will answer."
CONTENT_HIDDEN = (
    "I could not see any text in that message. Mention me in it, reply to one of my messages, or "
    "write to me directly."
)
BROKE_OFF = (
    "-# ⚠️ I broke off here because something failed on my side. Nothing else was lost; "
    "press “Try again”."
)
RESTARTED = "-# ⚠️ I was restarted while I wrote this. Press “Try again”."
ENGINE_FAILED = (
    "I am sorry, something failed on my side before I could answer. "
    "Your message is still here: press “Try again” in a moment."
)
QUESTION_GONE = (
    "I no longer have that question: it was in my memory only, and I was restarted. "
    "Please ask it again."
)
STILL_WRITING = "I am still writing here. Wait for the end, or press ⏹."
NOT_RUNNING = "This reply has already ended."
NOT_YOURS_TO_STOP = "Only the person who asked, or an admin, can stop this reply."
VERSION_GONE = (
    "That version was in my memory only and is gone. What you see is all that is left of it."
)
AGAIN_GONE = (
    "I no longer have what this reply answered: it was in my memory only. Ask again, and I will "
    "write you a new one."
)
AGAIN_FAILED = "I am sorry, that try failed on my side. The version from before is still there."
NOTHING_TO_REPLY_TO = "I can only answer what a person wrote, and I see no such text there."
LEAVING = "I am being restarted. Please try again in a minute."
BLOCKED = "The people who look after this server have asked me not to answer you."
RESET = (
    "Done. From here on I no longer look at what was said before in this place; "
    "nothing was deleted."
)


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
