"""Best of n: fit a reward model to what people said, and rank the bot's own replies by it.

The pairs this gives are what the DPO stage of a `bon` recipe learns from (Nakano et al. 2021 rank
by a reward model at each reply; here an adapter learns to do without). What is found out about the
votes on the way goes into the report.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.files import publish_directory
from core.jobs import (
    Example,
    JobSpec,
    PairExample,
    VoteExample,
    read_examples,
    write_examples,
)
from core.report import RewardFigures
from trainer import figures
from trainer.draws import Drawer, Draws, Prompt, prompts_to_ask
from trainer.effort import effort_of
from trainer.figures import Judged
from trainer.luck import chance_of_luck
from trainer.model import load_base, load_tokenizer
from trainer.ranked import (
    LENGTH_MATTERS,
    Option,
    better_and_worse,
    length_z,
    stuck_pairs,
    with_voted,
)
from trainer.reward import Opinions, Reward, Rows, contrary_people, fit_reward, out_of_fold
from trainer.scoring import Scored, Texts
from trainer.split import prompt_key
from trainer.states import reply_states
from trainer.style import style_features

DRAWS = "draws"
"""Where the draws are kept in a job's work directory."""

_LESSON = "lesson"
_PAIRS, _ANCHORS, _FIGURES, _REWARD = "pairs.jsonl", "anchors.jsonl", "figures.json", "reward.npz"

Progress = Callable[[float, str], None]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Lesson:
    """What the votes became: ranked pairs, the reward that ranked them, and its figures.

    `anchors` hold on to what the base knows: an adapter is kept out of what they use, and they are
    trained on beside the pairs.
    """

    pairs: list[PairExample]
    anchors: list[PairExample]
    reward: Reward
    figures: RewardFigures

    @property
    def taught(self) -> list[PairExample]:
        """Return what is trained on."""
        return [*self.pairs, *self.anchors]


def read_lesson(directory: Path) -> Lesson | None:
    """Return a lesson kept before; None if there is none."""
    if not directory.exists():
        return None
    pairs, anchors = _read_pairs(directory / _PAIRS), _read_pairs(directory / _ANCHORS)
    found = RewardFigures.model_validate_json((directory / _FIGURES).read_bytes())
    return Lesson(pairs, anchors, Reward.load(directory / _REWARD), found)


def _read_pairs(path: Path) -> list[PairExample]:
    return [one for one in read_examples(path) if isinstance(one, PairExample)]


def learn(
    spec: JobSpec,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    work: Path,
    on_progress: Progress,
) -> Lesson:
    """Return the lesson kept in a job's work directory, or make it and keep it there.

    It is learnt from the examples; `held_out` ones only help to say if chance would do as well.
    """
    lesson = read_lesson(work / _LESSON)
    if lesson is None:
        texts = Texts(load_tokenizer(spec), spec.max_length)
        teacher = Teacher(Drawer(spec, load_base(spec).eval(), texts))
        draws = teacher.draws(
            examples, work / DRAWS, lambda done: on_progress(0.7 * done, "drawing replies")
        )
        lesson = teacher.teach(
            examples,
            draws,
            lambda done, message: on_progress(0.7 + 0.3 * done, message),
            held_out=held_out,
        )
        keep_lesson(work / _LESSON, lesson)
    return lesson


def keep_lesson(directory: Path, lesson: Lesson) -> None:
    """Keep a lesson, whole or not at all."""

    def fill(path: Path) -> None:
        write_examples(path / _PAIRS, lesson.pairs)
        write_examples(path / _ANCHORS, lesson.anchors)
        lesson.reward.save(path / _REWARD)
        (path / _FIGURES).write_text(lesson.figures.model_dump_json(), encoding="utf-8")

    publish_directory(directory, fill)


@dataclass
class Teacher:
    """The base at work on one job's examples."""

    drawer: Drawer

    @property
    def spec(self) -> JobSpec:
        """Return the job."""
        return self.drawer.spec

    def draws(
        self, examples: Sequence[Example], kept: Path, on_progress: Callable[[float], None]
    ) -> Draws:
        """Return the draws kept in a directory, or draw and keep them there."""
        if not kept.exists():
            self.drawer.draw(prompts_to_ask(self.spec, examples), on_progress).keep(kept)
        return Draws.read(kept)

    def teach(
        self,
        examples: Sequence[Example],
        draws: Draws,
        on_progress: Progress,
        *,
        held_out: Sequence[Example] = (),
    ) -> Lesson:
        """Fit and rank; `on_progress` gets a fraction of this call."""
        everything = self.opinions(
            [*examples, *held_out],
            lambda done: on_progress(0.8 * done, "reading what people said"),
        )
        on_progress(0.8, "ranking the replies")
        trained = everything.first(*_counts(examples))
        contrary = contrary_people(trained)
        said = trained.without(contrary)
        reward, judged = fit_reward(said), foretold(said, self.spec.seed)
        heard = [example for example in examples if example.person not in contrary]
        z, voted = _length_z(heard), _voted(heard, reward.score(said.votes))
        about_length = z > LENGTH_MATTERS and z >= figures.judged_z(judged)
        pairs = self._ranked(draws, reward, voted, any_length=about_length)
        pairs += stuck_pairs(pairs, self.spec.seed)
        found = RewardFigures(
            accuracy=figures.person_bootstrap(figures.accuracy, judged, self.spec.seed),
            p_value=chance_of_luck(everything, self.spec.seed),
            tested=len(everything.labels) + len(everything.chosen),
            style=reward.style(),
            length_z=z,
            prompts=len(draws.asked),
            drawn=sum(len(one.options) for one in draws.asked),
            pairs=len(pairs) + len(draws.anchors),
            contrary=sorted(contrary),
        )
        return Lesson(pairs, draws.anchors, reward, found)

    def _ranked(
        self,
        draws: Draws,
        reward: Reward,
        voted: Mapping[str, Mapping[Option, float]],
        *,
        any_length: bool,
    ) -> list[PairExample]:
        """Return better replies beside worse ones."""
        rows = [(one.prompt, option) for one in draws.asked for option in one.options]
        scores = draws.of_each(reward.score(_with_style(draws.states, rows)))
        return better_and_worse(
            *with_voted(draws.asked, scores, voted),
            most=effort_of(self.spec).pairs,
            any_length=any_length,
        )

    def features(
        self,
        rows: Sequence[tuple[Prompt, Option]],
        on_progress: Callable[[float], None] = lambda fraction: None,
    ) -> Floats:
        """Return the features of finished replies to prompts.  # (N, D)"""
        scored = [
            Scored(
                self.drawer.ids(prompt),
                self.drawer.texts.reply(option.text, complete=option.complete),
            )
            for prompt, option in rows
        ]
        return _with_style(reply_states(self.drawer.causal, scored, on_progress), rows)

    def opinions(
        self, examples: Sequence[Example], on_progress: Callable[[float], None]
    ) -> Opinions:
        """Return votes and pairs as features; demonstrations have a pair each and say no more."""
        votes = [example for example in examples if isinstance(example, VoteExample)]
        pairs = [example for example in examples if isinstance(example, PairExample)]
        rows: list[tuple[Prompt, Option]] = [
            *((v.prompt, Option(v.completion, v.complete)) for v in votes),
            *((p.prompt, Option(p.chosen, p.chosen_complete)) for p in pairs),
            *((p.prompt, Option(p.rejected, p.rejected_complete)) for p in pairs),
        ]
        found = self.features(rows, on_progress)
        ends = len(votes), len(votes) + len(pairs)
        return Opinions(
            votes=found[: ends[0]],
            labels=np.array([float(vote.label) for vote in votes]),
            of_votes=_rows(votes),
            chosen=found[ends[0] : ends[1]],
            rejected=found[ends[1] :],
            of_pairs=_rows(pairs),
        )


def _with_style(states: Floats, rows: Sequence[tuple[Prompt, Option]]) -> Floats:
    """Return the states with the plain counts beside them.  # (N, D)"""
    style = [
        style_features(prompt[-1].content, option.text, complete=option.complete)
        for prompt, option in rows
    ]
    return np.concatenate([states, np.array(style)], axis=1)


def _counts(examples: Sequence[Example]) -> tuple[int, int]:
    """Return how many votes and how many pairs there are."""
    votes = sum(isinstance(example, VoteExample) for example in examples)
    return votes, sum(isinstance(example, PairExample) for example in examples)


def _voted(examples: Sequence[Example], rewards: Floats) -> dict[str, dict[Option, float]]:
    """Return the rewards of the replies voted on, each once, by the words of their prompts."""
    votes = [one for one in examples if isinstance(one, VoteExample)]
    found = defaultdict[str, dict[Option, float]](dict)
    for vote, reward in zip(votes, rewards.tolist(), strict=True):
        found[prompt_key(vote)][Option(vote.completion, vote.complete)] = reward
    return found


def foretold(said: Opinions, seed: int) -> Judged:
    """Return how each vote and pair would have been foretold by a fit that never saw its prompt."""
    rewards, differences = out_of_fold(said, seed)
    return Judged(
        rewards=rewards.tolist(),
        labels=[label > 0 for label in said.labels],
        voters=list(said.of_votes.people),
        differences=differences.tolist(),
        choosers=list(said.of_pairs.people),
    )


def _rows(examples: Sequence[VoteExample] | Sequence[PairExample]) -> Rows:
    return Rows(
        people=[example.person for example in examples],
        prompts=[prompt_key(example) for example in examples],
        weights=np.array([example.weight for example in examples]),
    )


def _length_z(examples: Sequence[Example]) -> float:
    return length_z(
        [
            (Option(example.completion, example.complete), example.label)
            for example in examples
            if isinstance(example, VoteExample)
        ],
        [
            (
                Option(example.chosen, example.chosen_complete),
                Option(example.rejected, example.rejected_complete),
            )
            for example in examples
            if isinstance(example, PairExample)
        ],
    )
