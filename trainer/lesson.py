"""A lesson: what votes became, as pairs to learn from, and what ranked them. Kept whole on disk.

Does not know how replies are drawn nor how a reward is fitted (see best_of_n).
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.files import publish_directory
from core.jobs import ChatMessage, Example, PairExample, read_examples, write_examples
from core.report import RewardFigures
from trainer.ranked import (
    Asked,
    Floats,
    Option,
    better_and_worse,
    likely,
    with_voted,
)
from trainer.recipes import imitable
from trainer.reward import Reward
from trainer.split import prompts_of

_PAIRS, _ANCHORS, _FIGURES = "pairs.jsonl", "anchors.jsonl", "figures.json"
_REWARD, _RATED = "reward.npz", "rated.json"


@dataclass(frozen=True, slots=True)
class Ranking:
    """By what replies are ranked: a reward, the rewards of the replies that were voted on by the
    words of their prompts, and whether the two replies of a pair may differ in length.
    """

    reward: Reward
    voted: Mapping[str, Mapping[Option, float]]
    any_length: bool

    def pairs(
        self, asked: Sequence[Asked], rewards: Sequence[Floats], *, most: int
    ) -> tuple[list[PairExample], float]:
        """Return better replies beside worse ones, and how likely the better are to be liked.

        `rewards` holds those of each option of each prompt; what was voted on stands among them.
        """
        options, scores = with_voted(asked, rewards, self.voted)
        pairs = better_and_worse(options, scores, most=most, any_length=self.any_length)
        return pairs, likely(options, scores, pairs)


@dataclass(frozen=True, slots=True)
class Lesson:
    """Ranked pairs, the reward that ranked them, and what was found out about the votes.

    `anchors` hold on to what the base knows: an adapter is kept out of what they use, and they are
    trained on beside the pairs. `rated` are the rewards of held-out replies, in the order of
    trainer.preference: those voted on, then both of each pair.
    """

    pairs: list[PairExample]
    anchors: list[PairExample]
    reward: Reward
    figures: RewardFigures
    rated: list[float]

    @property
    def taught(self) -> list[PairExample]:
        """Return what is trained on."""
        return [*self.pairs, *self.anchors]

    def imitated(self, examples: Sequence[Example]) -> list[Example]:
        """Return what a stage on examples learns from: nothing by people who contradict all others,
        unless nothing else can be imitated.
        """
        kept = [one for one in examples if one.person not in self.figures.contrary]
        return kept if imitable(kept) else list(examples)

    def heard(
        self, examples: Sequence[Example], most: int, seed: int
    ) -> list[Sequence[ChatMessage]]:
        """Return the prompts that a strength is heard at: the first `most` of those taught.

        Where votes are about length twice as many are drawn from all that people asked: the pairs
        are of prompts then that the base answers shortly itself, and say nothing of the others.
        """
        if not self.figures.about_length:
            return list(prompts_of(self.pairs).values())[:most]
        prompts = list(prompts_of(examples).values())
        return random.Random(seed).sample(prompts, min(2 * most, len(prompts)))


def read_lesson(directory: Path) -> Lesson | None:
    """Return a lesson kept before; None if there is none, or one of a version that rated later."""
    if not (directory / _RATED).exists():
        return None
    pairs, anchors = _read_pairs(directory / _PAIRS), _read_pairs(directory / _ANCHORS)
    found = RewardFigures.model_validate_json((directory / _FIGURES).read_bytes())
    rated = json.loads((directory / _RATED).read_bytes())
    return Lesson(pairs, anchors, Reward.load(directory / _REWARD), found, rated)


def keep_lesson(directory: Path, lesson: Lesson) -> None:
    """Keep a lesson, whole or not at all, in the place of one that an older version left."""

    def fill(path: Path) -> None:
        write_examples(path / _PAIRS, lesson.pairs)
        write_examples(path / _ANCHORS, lesson.anchors)
        lesson.reward.save(path / _REWARD)
        (path / _RATED).write_text(json.dumps(lesson.rated), encoding="utf-8")
        (path / _FIGURES).write_text(lesson.figures.model_dump_json(), encoding="utf-8")

    shutil.rmtree(directory, ignore_errors=True)
    publish_directory(directory, fill)


def _read_pairs(path: Path) -> list[PairExample]:
    return [one for one in read_examples(path) if isinstance(one, PairExample)]
