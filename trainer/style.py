"""Surface features of a reply: how long, how asked, how laid out, how near to the question's words.

A fixed, small set of what stylometry counts, chosen without looking at any vote; each is a plain
number of (prompt, reply, whether the model ended it itself). Knows no models.
"""

from __future__ import annotations

import re
from math import log1p

import numpy as np
from numpy.typing import NDArray

FEATURES = (
    "words", "ended by itself", "sentences", "words a sentence", "line breaks", "list items",
    "question marks", "exclamation marks", "commas", "colons", "digits", "emoji", "I and we", "you",
    "question's words taken up", "share of words from the question", "variety of words",
    "letters a word", "words in the first sentence",
)  # fmt: skip

_WORD = re.compile(r"[\w']+")
_ITEM = re.compile(r"\s*(\d+[.)]|[-*•])\s")
_FIRST = frozenset(
    [
        "i",
        "i'm",
        "i've",
        "i'll",
        "i'd",
        "me",
        "my",
        "mine",
        "we",
        "we're",
        "we've",
        "we'll",
        "our",
        "ours",
        "us",
    ]
)
_SECOND = frozenset(["you", "you're", "you've", "you'll", "your", "yours"])
_SHORT = 3
"""Words of so few letters say little of what a question is about."""
_SYMBOLS = 0x2190
"""From this code point on there are arrows, symbols and emoji."""


def style_features(prompt: str, text: str, *, complete: bool) -> NDArray[np.float64]:
    """Return the features of one reply, in the order of FEATURES; counts as log(1 + n)."""
    words, asked = _words(text), {word for word in _words(prompt) if len(word) > _SHORT}
    count, different = max(1, len(words)), set(words)
    sentences = [part for part in re.split(r"[.!?]+", text) if part.strip()]
    lines = [line for line in text.splitlines() if line.strip()]
    taken_up = len(asked & different)
    first = len(_words(sentences[0])) if sentences else 0
    return np.array(
        [
            log1p(len(words)),
            float(complete),
            log1p(len(sentences)),
            log1p(count / max(1, len(sentences))),
            log1p(max(0, len(lines) - 1)),
            log1p(sum(bool(_ITEM.match(line)) for line in lines)),
            *(log1p(text.count(mark)) for mark in "?!,:"),
            log1p(sum(map(str.isdigit, text))),
            log1p(sum(ord(character) >= _SYMBOLS for character in text)),
            sum(word in _FIRST for word in words) / count,
            sum(word in _SECOND for word in words) / count,
            taken_up / max(1, len(asked)),
            taken_up / max(1, len(different)),
            len(different) / count,
            sum(map(len, words)) / count,
            log1p(first),
        ]
    )


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]
