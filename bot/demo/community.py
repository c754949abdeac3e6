"""A simulated community: prompts, people and a stated taste, for the demo and for tests of the
loop.

The taste is a rule anyone can check by eye, the noise of each person is known, and the prompts for
training and for measuring never overlap. Knows nothing of models or storage.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files

MAX_WORDS = 60
_NAMES = (
    "Ada", "Bo", "Cleo", "Dario", "Edda", "Finn", "Greta", "Hugo", "Ines", "Jon", "Kaya", "Liam",
    "Mira", "Nils", "Olga", "Pepe",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Member:
    """One simulated person: `activity` is their share of all votes, `noise` the chance of a wrong
    one.
    """

    name: str
    activity: float
    noise: float


@dataclass(frozen=True, slots=True)
class Taste:
    """What a community likes: a sentence for people and a rule on (text, finished by itself)."""

    name: str
    sentence: str
    likes: Callable[[str, bool], bool]


def likes_brief(text: str, complete: bool) -> bool:
    """Like a reply that ends by itself and has 1 to MAX_WORDS words."""
    return complete and 0 < len(text.split()) <= MAX_WORDS


BRIEF = Taste("brief", f"complete replies of at most {MAX_WORDS} words", likes_brief)
NONE = Taste("none", "nothing in particular: the same votes, shuffled at random", likes_brief)
TASTES = {taste.name: taste for taste in (BRIEF, NONE)}


def make_members(seed: int, count: int = 12) -> list[Member]:
    """Draw people: a few vote a lot, most a little (1/rank); each errs in 0 to 10 % of votes."""
    rng = random.Random(f"members-{seed}")
    weights = [1 / (rank + 2) for rank in range(count)]
    names = rng.sample(_NAMES, count)
    total = sum(weights)
    return [
        Member(name, weight / total, rng.uniform(0.0, 0.10))
        for name, weight in zip(names, weights, strict=True)
    ]


def votes_up(taste: Taste, member: Member, text: str, complete: bool, rng: random.Random) -> bool:
    """Say whether this person gives a 👍: the taste's rule, turned round with their noise."""
    return taste.likes(text, complete) != (rng.random() < member.noise)


def split_prompts(seed: int, train: int, unseen: int) -> tuple[list[str], list[str]]:
    """Draw disjoint prompts for training and for measuring, five of our own to three real openings.

    Raises ValueError if there are not enough.
    """
    own, real = _own_prompts(), _real_prompts()
    rng = random.Random(f"prompts-{seed}")
    rng.shuffle(own)
    rng.shuffle(real)
    mixed = list(_interleave(own, real))
    if train + unseen > len(mixed):
        raise ValueError(f"{train + unseen} prompts asked for, {len(mixed)} there are")
    return mixed[unseen : unseen + train], mixed[:unseen]


def _interleave(own: list[str], real: list[str]) -> Iterator[str]:
    for block in range(min(len(own) // 5, len(real) // 3)):
        yield from own[5 * block : 5 * block + 5]
        yield from real[3 * block : 3 * block + 3]


def _own_prompts() -> list[str]:
    text = files("bot.demo").joinpath("prompts.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.strip()]


def _real_prompts() -> list[str]:
    """Opening messages of real chats that ask something, each once."""
    seen: set[str] = set()
    return [text for text in _openings() if _is_new(text, seen)]


def _is_new(text: str, seen: set[str]) -> bool:
    key = re.sub(r"[^a-z]+", " ", text.lower()).strip()
    if key in seen:
        return False
    seen.add(key)
    return True


def _openings() -> Iterator[str]:
    from chitchat_dataset import Dataset

    for conversation in Dataset().values():
        first = conversation["messages"][0] if conversation["messages"] else []
        text = " ".join(message["text"] for message in first).strip()
        if text.endswith("?") and 4 <= len(text.split()) <= 40 and text.isprintable():
            yield text
