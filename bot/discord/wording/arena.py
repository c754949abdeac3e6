"""What the arena says: two replies to choose from, and a word to whoever chose."""

from __future__ import annotations

TITLES = ("A", "B")
TIE = "Tie"
"""Labels the third button under two replies."""
FOOTER = "Which one is better? Nobody sees which version wrote which."
"""Under two replies."""
NOTHING_WRITTEN = "*(no words at all)*"
"""Stands for a reply without a word."""
CUT_HERE = "-# This reply is longer than I can show here."
"""Under a reply that is cut to fit beside the other."""
WRITING = "-# ⚖️ I am writing two replies for you to choose from."
"""Stands where the two replies will be, while they are written."""

ONLY_ONE_VERSION = (
    "There is only one version of me here so far, so there is nothing to compare. "
    "After the next training there will be two."
)
"""Told to the one who used /arena."""
FAILED = (
    "I am sorry, one of the two replies failed on my side, so there is nothing to choose. "
    "Please ask again in a moment."
)
"""Stands where the two replies to /arena would have been."""
OFFERED = "I wrote two replies this time. Which one is better?"
"""Stands above two replies that were shown in the place of one."""
_WHAT_NEXT = (
    "You can change your mind by pressing another button. Admins see how the versions stand with "
    "`/adapter compare`."
)
TIED = f"Noted: neither is better. {_WHAT_NEXT}"
"""Told to the one who pressed Tie."""
MATCH_GONE = "These two replies have been deleted, so there is nothing left to vote on."
"""Told to the one who pressed a button under an old message."""


def busy(waiting: int) -> str:
    """Say that so many replies wait that no two more are taken."""
    return f"I am too busy right now: {waiting} replies are waiting. Please ask again in a moment."


def chosen(title: str) -> str:
    """Told to the one who chose A or B."""
    return f"Noted: {title} is better. {_WHAT_NEXT}"
