"""Real talk to measure with: contexts and replies from the package `chitchat-dataset` (MIT).

Two people wrote in bursts; a burst is a turn here. The one who answers last plays the assistant, so
a context ends with a user's turn and the reply to it is what a person really wrote. Texts are drawn
by seed, the same on every machine.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from core.generation import Message

_REPLY_WORDS = (20, 100)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A context that ends with a user's turn, and what was answered."""

    context: tuple[Message, ...]
    reply: str


@cache
def _talks() -> tuple[tuple[str, ...], ...]:
    """Return every conversation as its turns, in a fixed order."""
    from chitchat_dataset import Dataset

    found = []
    for _, talk in sorted(Dataset().items()):
        turns = (" ".join(one["text"].strip() for one in burst) for burst in talk["messages"])
        found.append(tuple(turn for turn in turns if turn))
    return tuple(found)


def exchanges(count: int, *, seed: int, most_turns: int = 11) -> list[Exchange]:
    """Draw exchanges with contexts of 1 to `most_turns` turns and replies of 20 to 100 words.

    A reply is lengthened by what was said next until it has a drawn number of words: a model's
    replies are longer than a person's.
    """
    chance = random.Random(seed)
    drawn: list[Exchange] = []
    for turns in _shuffled(chance):
        first = chance.randrange(0, max(1, len(turns) - 3))
        length = chance.randrange(1, most_turns + 1, 2)
        context, rest = turns[first : first + length], turns[first + length :]
        if len(context) < length:
            continue
        reply = _joined(rest, chance.randint(*_REPLY_WORDS))
        if reply:
            drawn.append(Exchange(_messages(context), reply))
        if len(drawn) == count:
            return drawn
    raise ValueError(f"{count} exchanges: the package holds only {len(drawn)}")


def _shuffled(chance: random.Random) -> Iterator[tuple[str, ...]]:
    yield from chance.sample(_talks(), len(_talks()))


def _joined(turns: tuple[str, ...], words: int) -> str | None:
    said: list[str] = []
    for turn in turns:
        said += turn.split()
        if len(said) >= words:
            return " ".join(said[:words])
    return None


def _messages(turns: tuple[str, ...]) -> tuple[Message, ...]:
    """Give the last turn, and every second before it, to the user."""
    last = len(turns) - 1
    return tuple(
        Message("user" if (last - index) % 2 == 0 else "assistant", turn)
        for index, turn in enumerate(turns)
    )
