"""Pairs to learn from: the bot's own replies to people's prompts, a better one against a worse.

Better and worse are by the reward model (trainer.reward), among what the base draws anew and what
was voted on. What an adapter learns from such pairs is what the bot can say already, only more or
less often: both replies are to one prompt, and no person's own words stand in them. Unless the
votes themselves are about length, the two replies of a pair are of like length and end alike, so
that length is not learnt by chance. Knows no models.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice, permutations
from math import log

import numpy as np
from numpy.typing import NDArray

from core.jobs import ChatMessage, PairExample
from trainer.figures import pairs_z, repeated_share, together, votes_z
from trainer.split import words_of

MOST_REPEATED = 0.25
"""A reply with a larger share of repeated words in a row teaches neither side."""
FEWEST_WORDS = 3
LENGTH_RATIO = 1.35
"""Replies of like length differ by this factor at most."""
LENGTH_MATTERS = 3.3
"""Standard errors by which liked and disliked replies must differ in length for votes to be about
it: by chance once in a thousand. Length must also tell as much as everything together does: who
likes no lists likes shorter replies too, without asking for them."""
REPEATED_COST = 10.0
"""Log-odds that a reply loses by repeating itself, times the share that is repeated: who is taught
that it may be, says everything twice in the end."""
PER_PROMPT = 3
"""Pairs of one prompt, at most: a liked reply says more against several than a doubtful one. Where
votes are about length it is one: nearly all pairs would be of the few prompts that the base answers
now shortly and now at length, and what is learnt hardly reaches the others."""
STUCK_SHARE = 8
"""Of so many pairs one is had again with a worse side that is stuck."""
STUCK_WORDS = (2, 6)
"""How many words such a side says over and over: at least, at most."""
TEACHER = "reward"
"""Who such a pair is by."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Option:
    """One reply the base drew; `complete` says that it ended it itself."""

    text: str
    complete: bool

    @property
    def words(self) -> int:
        """Return how many words it has."""
        return len(self.text.split())

    @property
    def repeated(self) -> float:
        """Return the share of its three words in a row that stood in it before."""
        return repeated_share([hash(word) for word in self.text.lower().split()], 3)

    @property
    def sound(self) -> bool:
        """Whether it says something, and not the same over and over."""
        return self.words >= FEWEST_WORDS and self.repeated <= MOST_REPEATED


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt and the replies to it."""

    prompt: tuple[ChatMessage, ...]
    options: tuple[Option, ...]


def of_each(asked: Sequence[Asked], rows: Floats) -> list[Floats]:
    """Return what stands there reply after reply, prompt by prompt."""
    ends = np.cumsum([len(one.options) for one in asked])
    return np.split(rows, ends[:-1])


def with_voted(
    asked: Sequence[Asked],
    rewards: Sequence[Floats],
    voted: Mapping[str, Mapping[Option, float]],
) -> tuple[list[Asked], list[Floats]]:
    """Return the prompts with the replies among the options that were voted on, and the rewards.

    `voted` holds the rewards of such replies by the words of their prompts.
    """
    said = [voted.get(words_of(one.prompt), {}) for one in asked]
    options = [
        Asked(one.prompt, (*one.options, *more)) for one, more in zip(asked, said, strict=True)
    ]
    scores = [np.append(own, [*more.values()]) for own, more in zip(rewards, said, strict=True)]
    return options, scores


def better_and_worse(
    asked: Sequence[Asked],
    rewards: Sequence[Floats],
    *,
    most: int,
    any_length: bool,
) -> list[PairExample]:
    """Return the `most` pairs that say most, in the order asked, PER_PROMPT of a prompt at most,
    one where they may be of `any_length`.

    `rewards` holds the log-odds r of a 👍 for each option of each prompt; a reply that repeats
    itself loses REPEATED_COST times the share it repeats. A pair says σ(r) - σ(r'): how many more
    would like the better reply. Where few are liked at all, pairs chosen by r - r' are mostly of a
    usual reply and an odd one.
    """
    found = []
    for place, (one, scores) in enumerate(zip(asked, rewards, strict=True)):
        repeated = np.array([option.repeated for option in one.options])
        liked = 1 / (1 + np.exp(REPEATED_COST * repeated - scores))
        pairs = [
            (float(liked[i] - liked[j]), place, i, j)
            for i, j in permutations(range(len(one.options)), 2)
            if liked[i] > liked[j] and _comparable(one.options[i], one.options[j], any_length)
        ]
        found += sorted(pairs, reverse=True)[: 1 if any_length else PER_PROMPT]
    told = sorted(found, reverse=True)[:most]
    return [
        _pair(asked[place], asked[place].options[better], asked[place].options[worse])
        for _, place, better, worse in sorted(told, key=lambda pair: pair[1])
    ]


def likely(
    asked: Sequence[Asked], rewards: Sequence[Floats], pairs: Sequence[PairExample]
) -> float:
    """Return how likely the better replies are to be liked, on average; 0 without pairs."""
    known = {
        (words_of(one.prompt), option.text): reward
        for one, scores in zip(asked, rewards, strict=True)
        for option, reward in zip(one.options, scores.tolist(), strict=True)
    }
    return share_liked(np.array([known[words_of(pair.prompt), pair.chosen] for pair in pairs]))


def share_liked(rewards: Floats) -> float:
    """Return the share of replies with these rewards that people would like: the mean of σ."""
    return float((1 / (1 + np.exp(-rewards))).mean()) if len(rewards) else 0.0


def stuck_pairs(pairs: Sequence[PairExample], seed: int) -> list[PairExample]:
    """Return some of the pairs again, each with a worse side that says the first few words of the
    better one over and over, as long as that is.

    An adapter that is pushed far begins to do so ("I'm sorry, I'm sorry, …"). The base hardly does,
    so its own replies cannot teach against it (Welleck et al. 2019 do so by unlikelihood).
    """
    chance = random.Random(seed)
    found = []
    for pair in chance.sample(pairs, len(pairs) // STUCK_SHARE):
        words = pair.chosen.split()
        said = islice(cycle(words[: chance.randint(*STUCK_WORDS)]), len(words))
        stuck = {"rejected": " ".join(said), "rejected_complete": False}
        found.append(pair.model_copy(update=stuck))
    return found


def anchor_pairs(
    prompts: Sequence[tuple[ChatMessage, ...]], likeliest: Sequence[Option], drawn: Sequence[Option]
) -> list[PairExample]:
    """Return pairs of what the base says first and of what it might say, where the two differ."""
    return [
        _pair(Asked(prompt, (first, other)), first, other)
        for prompt, first, other in zip(prompts, likeliest, drawn, strict=True)
        if first.text.strip() and other.text.strip() and first.text.strip() != other.text.strip()
    ]


def _comparable(one: Option, other: Option, any_length: bool) -> bool:
    if not (one.sound and other.sound) or one.text.strip() == other.text.strip():
        return False
    alike = abs(log(one.words / other.words)) <= log(LENGTH_RATIO)
    return any_length or (one.complete == other.complete and alike)


def _pair(asked: Asked, better: Option, worse: Option) -> PairExample:
    return PairExample(
        feedback_ids=[],
        person=TEACHER,
        at="",
        prompt=list(asked.prompt),
        chosen=better.text,
        chosen_complete=better.complete,
        rejected=worse.text,
        rejected_complete=worse.complete,
    )


def length_z(votes: Sequence[tuple[Option, bool]], pairs: Sequence[tuple[Option, Option]]) -> float:
    """Return by how many standard errors liked replies are longer, or end more often by themselves.

    The larger of the two, without its sign: Mann and Whitney's z for votes, the sign test's for
    (chosen, rejected) pairs, added up by Stouffer's rule. 0 where nothing can be said.
    """
    liked = [label for _, label in votes]
    found = []
    for measure in (_words, _ended):
        z = votes_z([measure(option) for option, _ in votes], liked)
        found.append(together(z, pairs_z([measure(a) - measure(b) for a, b in pairs])))
    return max(map(abs, found))


def _words(option: Option) -> float:
    return float(option.words)


def _ended(option: Option) -> float:
    return float(option.complete)
