"""What people are told about what is kept of them. Only the person concerned sees any of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

OPT_IN = "Opt in"
"""A button under `/privacy show`."""
OPT_OUT = "Opt out"
"""A button under `/privacy show`."""
EXPORT = "Send me a copy"
"""A button under `/privacy show`."""
FORGET = "Forget me"
"""A button under `/privacy show`."""
FORGET_NOW = "Yes, forget me"
"""The button that confirms forgetting."""
KEEP = "No, leave it"
"""The button that calls forgetting off."""

OPTED_IN = (
    "Thank you, you have opted in. Where a server has training switched on and the operator holds "
    "the permission for it, I now keep each new reply with the part of the talk that it answers, "
    "and your corrections, and may learn from them, but only where everybody else in that part "
    "opted in too. What you wrote before this moment is not kept. "
    "`/privacy opt-out` takes it all back at once."
)
"""Told after `/privacy opt-in`."""
COPY_SENT = "I have sent you the file in a direct message."
"""Told after `/privacy export`."""
COPY_HERE = (
    "Your direct messages are closed to me, so here is the file. Only you can see this message; "
    "save the file before you dismiss it."
)
"""Told after `/privacy export` where the direct message could not be delivered."""
COPY = "This is everything that is stored about you."
"""The direct message that carries the file of `/privacy export`."""
CONFIRM_FORGET = (
    "This deletes what I stored of you, on every server: your messages to me, what I answered, "
    "your votes and corrections, and your choices here. It cannot be undone. Shall I?"
)
"""Asked before anybody is forgotten."""
IN_PARTS = (
    "I run in several parts, each with records of its own, and this is about the part that serves "
    "you here. Use /privacy on each other server where you talked to me, too."
)
"""Added to what `/privacy` says of what is kept, where several bot processes share the servers."""
LEFT_ALONE = "Nothing was changed."
"""Told when forgetting is called off."""
NOTHING_REMOVED = "There was nothing to remove."
"""Told after `/privacy opt-out` and `/privacy forget` where nothing was stored."""

NAMED = 12
_TABLES = {
    "redacted": ("reply with its question", "replies with their questions"),
    "replies": ("reply", "replies"),
    "turns": ("stored message", "stored messages"),
    "feedback": ("vote or correction", "votes and corrections"),
    "conversations": ("conversation", "conversations"),
    "reactions": ("reaction", "reactions"),
    "match_votes": ("choice", "choices"),
}


def consent_line(state: str) -> str:
    """The first lines of `/privacy show`: what the person decided and what follows from it."""
    if state == "given":
        return (
            "**You have opted in.** Where a server trains, I may store what you write to me, what "
            "I answer and your corrections, and learn from them, but only where everybody else in "
            "that talk opted in too. Elsewhere your words are in my memory only."
        )
    said = "You have opted out." if state == "refused" else "You have not opted in."
    return (
        f"**{said}** I store none of your words. What you write to me and what I answer is in my "
        "memory only, for a while, and gone when I restart. I do store your Discord id, your votes "
        "with the reasons you gave, and of each reply when and how it was made, but not its text."
    )


def here(place: str, *, training: bool, permitted: bool) -> str:
    """The part of `/privacy show` about the place where it was asked."""
    if not training:
        return (
            f"**Here:** training is switched off {place}, so no words are kept and none trained on."
        )
    if not permitted:
        return (
            f"**Here:** training is switched on {place}, but whoever runs me does not hold the "
            "permission that Discord requires, so no words are kept and none trained on."
        )
    return (
        f"**Here:** training is switched on {place}, and whoever runs me states that they hold the "
        "permission that Discord requires. What people who opted in write to me here is kept and "
        "learnt from."
    )


def stored(replies: int, votes: int, corrections: int) -> str:
    """The part of `/privacy show` that counts what is stored."""
    kept = _many(replies, "reply stored with its question", "replies stored with their questions")
    cast = _many(votes, "vote", "votes")
    fixed = _many(corrections, "correction", "corrections")
    return f"**Stored of you now:** {kept}, {cast}, {fixed}."


def learnt(adapters: Sequence[str]) -> str:
    """The part of `/privacy show` about versions of the bot that learnt from the person."""
    return f"**Versions that learnt from you:** {_named(adapters)}."


def retention(days: int) -> str:
    """The part of `/privacy show` about when things go by themselves."""
    if not days:
        return "Replies nobody voted on are kept until somebody removes them."
    return f"Replies nobody voted on are deleted after {days} days."


def removed(counts: Mapping[str, int], adapters: Sequence[str]) -> str:
    """What was removed, and which versions will be replaced because of it."""
    parts = [
        _many(counts[key], one, several)
        for key, (one, several) in _TABLES.items()
        if counts.get(key)
    ]
    first = f"Removed: {', '.join(parts)}." if parts else NOTHING_REMOVED
    if not adapters:
        return first
    return (
        f"{first}\nThese versions of me learnt from you and will be replaced by the next training "
        f"run, which does without you: {_named(adapters)}."
    )


def opted_out(counts: Mapping[str, int], adapters: Sequence[str]) -> str:
    """Told after `/privacy opt-out`."""
    return (
        "You have opted out. From now on I keep none of your words; your votes stay, without the "
        f"words they were about.\n{removed(counts, adapters)}"
    )


def forgotten(counts: Mapping[str, int], adapters: Sequence[str]) -> str:
    """Told after a person was forgotten."""
    return (
        f"Done: you are forgotten. {removed(counts, adapters)}\nMessages and reactions on "
        "Discord itself are yours to delete (a thumb that still stands there would be counted "
        "anew); backups that the operator made before are outside my reach."
    )


def server_left(scope: str, adapter: str | None) -> str:
    """The operator's line when the bot was removed from a server."""
    spoke = f"; {adapter} no longer speaks there" if adapter else ""
    return f"Discord: {scope} is left; all that was kept of that server is removed{spoke}"


def _named(adapters: Sequence[str]) -> str:
    """Name the newest few: years of training are more than a message holds."""
    more = len(adapters) - NAMED
    return ", ".join(adapters[-NAMED:]) + (f" and {more} before" if more > 0 else "")


def _many(count: int, one: str, several: str) -> str:
    return f"{count or 'no'} {one if count == 1 else several}"
