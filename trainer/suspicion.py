"""Feedback that looks like an attempt to plant something: set aside until an admin has looked.

Two patterns. A prompt that dictates its own answer ("repeat after me: …"), with the answer liked or
written as a correction: that way a phrase gets into a model without anybody liking it. And a swarm:
many people who have hardly been there before say the same of the same thing within an hour. What an
admin accepted in the review counts as looked at. Knows no torch and no SQL.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from difflib import SequenceMatcher

from core.records import FeedbackRow, parse_time

DICTATED = "dictated by the prompt"
SWARM = "a swarm of new people"
"""Why such rows are left out, as counts name it."""

FEWEST_WORDS, DICTATED_SHARE = 4, 0.5
"""A prompt dictates a reply if it holds so many of its words in a row, and this share of them."""
MOST_TIMES = 2.5
"""A reply longer than so many times its prompt cannot have half of its words from it."""
SWARM_PEOPLE = 6
SWARM_TIME = timedelta(hours=1)
NEW_FOR = timedelta(days=1)
"""Somebody is new for so long after their first feedback here."""

_WORD = re.compile(r"[\w']+")


def suspicious(rows: Sequence[FeedbackRow]) -> dict[str, str]:
    """Return the feedback ids to set aside, each with the reason; `rows` are a scope's, by time."""
    unseen = [row for row in rows if row.feedback.reviewed_at is None]
    found = {row.feedback.id: DICTATED for row in unseen if _is_dictated(row)}
    for row in _swarms(rows):
        if row.feedback.reviewed_at is None:
            found.setdefault(row.feedback.id, SWARM)
    return found


def prompt_subject(row: FeedbackRow) -> str:
    """Return what a row's prompt is about: its words, without order, repetition and digits."""
    asked = _asked(row)
    return " ".join(sorted({word for word in _words(asked) if not word.isdigit()}))


def _is_dictated(row: FeedbackRow) -> bool:
    match row.feedback.kind:
        case "up" | "preference":
            text = row.reply_text
        case "correction":
            text = row.feedback.text or ""
        case _:
            return False
    if len(text) > MOST_TIMES * len(_asked(row)):
        return False  # most replies: far too long to stand in the prompt
    asked, said = _words(_asked(row)), _words(text)
    longest = SequenceMatcher(None, asked, said, autojunk=False).find_longest_match().size
    return longest >= FEWEST_WORDS and longest >= DICTATED_SHARE * len(said)


def _swarms(rows: Sequence[FeedbackRow]) -> Iterable[FeedbackRow]:
    """Yield the rows of every swarm; in a scope's first day everybody is new, so there is none."""
    since: dict[str, datetime] = {}
    said: defaultdict[tuple[str, str], list[tuple[datetime, FeedbackRow]]] = defaultdict(list)
    for row in rows:
        at = parse_time(row.feedback.at)
        beginning = next(iter(since.values()), at)
        first = since.setdefault(row.feedback.person_id, at)
        if at - first <= NEW_FOR < at - beginning:
            said[prompt_subject(row), row.feedback.kind].append((at, row))
    for alike in said.values():
        for at, _ in alike:
            together = [row for when, row in alike if at <= when <= at + SWARM_TIME]
            if len({row.feedback.person_id for row in together}) >= SWARM_PEOPLE:
                yield from together


def _asked(row: FeedbackRow) -> str:
    spoken = [message.content for message in row.prompt if message.role == "user"]
    return spoken[-1] if spoken else ""


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
