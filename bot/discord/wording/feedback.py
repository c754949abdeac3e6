"""What /feedback stats, review and export answer with; only the admin who asked sees it."""

from __future__ import annotations

from bot.discord.wording.training import LEFT_OUT

STATS_TITLE = "Feedback here"
"""Heads the answer to /feedback stats."""
REVIEW_TITLE = "Review"
"""Heads each row of /feedback review."""
NOTHING_TO_REVIEW = "Nothing waits for a review. New corrections and odd votes will show up here."
"""Shown when the review queue is empty."""
GONE = "That row is no longer there: its person took it back or it was deleted. Here is the next."
"""Stands over the next row when the one that was decided on is gone."""
NOTHING_TO_EXPORT = (
    "There is nothing to export in this format yet: only what everybody involved agreed to may "
    "leave. /feedback stats says why other rows may not."
)
"""Answers /feedback export when no row may leave."""
EDIT_TITLE = "Change the correction"
"""Heads the form behind Edit."""
EDIT_LABEL = "What the reply should have said"
"""Labels the field of the form behind Edit."""

ACTIONS = {"accept": "Accept", "edit": "Edit", "drop": "Drop", "skip": "Skip"}
"""Labels the buttons under a row of the review."""

FLAGS = {
    "correction": "A correction, which is learnt word by word",
    "reasons": "A vote with a reason",
    "disagree": "People disagree on this reply",
    "burst": "Very many votes of one person within an hour",
    "dictated": "The question dictated the answer; set aside until you accept it",
    "swarm": "Many new people said the same within an hour; set aside until you accept it",
}
"""Says why a row should be looked at."""

KINDS = {
    "up": "👍",
    "down": "👎",
    "correction": "✏️ correction",
    "preference": "⚖️ chosen over another reply",
    "regenerate": "🔁 asked again",
}
"""Names a signal."""

FIELDS = {
    "kinds": "Signals",
    "people": "People",
    "liked": "Liked replies",
    "waiting": "New since the last training",
    "may_train": "May be learnt from",
    "may_not": "May not",
    "asked": "Asked",
    "reply": "Reply",
    "signal": "Signal",
    "who": "By",
    "why": "Why it is here",
}
"""Labels the parts of the answers."""


def kinds(*, up: int, down: int, corrections: int, choices: int, again: int) -> str:
    """Count signals by kind in /feedback stats."""
    return f"👍 {up} · 👎 {down} · ✏️ {corrections} · ⚖️ {choices} · 🔁 {again}"


def liked(adapter: str, up: int, total: int) -> str:
    """Tell how liked one version is in /feedback stats."""
    name = "base model" if adapter == "base" else adapter
    return f"`{name}`: {up} of {total} ({up / total:.0%})"


def may_not(reason: str, number: int) -> str:
    """Tell how many signals may not be learnt from, for one reason."""
    return f"{number}: {LEFT_OUT.get(reason, reason)}"


def left(number: int) -> str:
    """Tell under a row of the review how many there are still."""
    return f"{number} left"


def signal(kind: str, reasons: str, correction: str) -> str:
    """Show what a person said of a reply: thumb, reasons, or correction."""
    parts = [KINDS.get(kind, kind), reasons, correction]
    return "\n".join(part for part in parts if part)


def exported(rows: int, form: str) -> str:
    """Go with the file of /feedback export."""
    return f"{rows} {'row' if rows == 1 else 'rows'} in the format `{form}`, all of them consented."


def too_big(megabytes: float, form: str, scope: str) -> str:
    """Answer /feedback export when Discord would not take the file."""
    return (
        f"The file would be {megabytes:.1f} MB, and Discord takes 10 MB. Whoever runs me can write "
        f"it with `thumbtune feedback export FILE --format {form} --scope {scope}`."
    )
