"""Real questions for the communities: who asks what, and what is kept for measuring.

From the package `chitchat-dataset` (what people ask one another in the middle of a talk) and the
demo's own everyday questions. Those for training and those for measuring never overlap, also not in
other words for the same.
"""

from __future__ import annotations

import random
import re
from importlib.resources import files

TRAIN, UNSEEN = 1400, 128
OWN_SHARE = 0.12
"""The share of everyday questions among the small talk, in both parts."""
_FEWEST_WORDS, _MOST_WORDS = 5, 40


def split_prompts(train: int = TRAIN, unseen: int = UNSEEN) -> tuple[list[str], list[str]]:
    """Return the prompts to vote on and the unseen ones; always the same for the same numbers."""
    chance = random.Random("learning-prompts")
    own, asked = _own(), _asked()
    chance.shuffle(own)
    chance.shuffle(asked)
    parts = []
    for size in (unseen, train):
        few = min(round(OWN_SHARE * size), len(own))
        part = [*own[:few], *asked[: size - few]]
        del own[:few], asked[: size - few]
        chance.shuffle(part)
        parts.append(part)
    return parts[1], parts[0]


def words_of(text: str) -> list[str]:
    """Return the lower-case words of a text."""
    return re.findall(r"[a-z']+", text.lower())


def _own() -> list[str]:
    text = files("bot.demo").joinpath("prompts.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.strip()]


def _asked() -> list[str]:
    """Messages of real chats that ask something and stand by themselves, each once."""
    from chitchat_dataset import Dataset

    seen: set[str] = set()
    found = []
    for conversation in Dataset().values():
        for turn in conversation["messages"]:
            text = " ".join(message["text"] for message in turn).strip()
            key = " ".join(words_of(text))
            if key not in seen and _asks(text):
                seen.add(key)
                found.append(text)
    return sorted(found)


def _asks(text: str) -> bool:
    return (
        text.endswith("?")
        and _FEWEST_WORDS <= len(text.split()) <= _MOST_WORDS
        and text.isprintable()
        and text.isascii()
    )
