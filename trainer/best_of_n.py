"""Best of n: fit a reward model to what people said, and rank the bot's own replies by it.

The pairs this gives are what the DPO stage of a `bon` recipe learns from (Nakano et al. 2021 rank
by a reward model at each reply; here an adapter learns to do without). Where what people like is
rare in what the base says a scout's replies are ranked too (trainer.scout). What is found out about
the votes on the way goes into the report.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.jobs import Example, JobSpec, PairExample, VoteExample
from core.report import RewardFigures
from trainer import figures, scout
from trainer.draws import Drawer, Draws, Prompt, prompts_to_ask
from trainer.effort import effort_of
from trainer.figures import Judged
from trainer.lesson import Lesson, Ranking, keep_lesson, read_lesson
from trainer.luck import chance_of_luck
from trainer.model import load_base, load_tokenizer
from trainer.ranked import (
    LENGTH_MATTERS,
    Asked,
    Option,
    length_z,
    of_each,
    share_liked,
    stuck_pairs,
)
from trainer.reliability import wrong_shares
from trainer.reward import Opinions, Reward, Rows, contrary_people, fit_reward, out_of_fold
from trainer.scoring import Scored, Texts
from trainer.split import prompt_key
from trainer.states import reply_states
from trainer.style import style_features

DRAWS = "draws"
"""Where the draws are kept in a job's work directory."""

_LESSON = "lesson"

Progress = Callable[[float, str], None]
Floats = NDArray[np.float64]


def learn(
    spec: JobSpec,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    work: Path,
    on_progress: Progress,
) -> Lesson:
    """Return the lesson kept in a job's work directory, or make it and keep it there.

    It is learnt from the examples; `held_out` ones are rated by it, and only help to say if chance
    would do as well.
    """
    lesson = read_lesson(work / _LESSON)
    if lesson is None:
        teacher = _teacher(spec)
        draws = teacher.draws(
            examples, work / DRAWS, lambda done: on_progress(0.4 * done, "drawing replies")
        )
        lesson, ranking = teacher.teach(
            examples,
            draws,
            lambda done, message: on_progress(0.4 + 0.1 * done, message),
            held_out=held_out,
        )
        del teacher  # so that a large base is not in memory twice
        if scout.is_needed(lesson.figures):
            lesson = _scouted(
                spec,
                lesson,
                draws,
                ranking,
                work,
                lambda done, message: on_progress(0.5 + 0.5 * done, message),
            )
        keep_lesson(work / _LESSON, lesson)
    return lesson


def _scouted(
    spec: JobSpec,
    lesson: Lesson,
    draws: Draws,
    ranking: Ranking,
    work: Path,
    on_progress: Progress,
) -> Lesson:
    """Return the lesson with the best pairs of the base's replies and of a scout's."""
    rewards = _rewards(draws, ranking.reward)
    told, _ = ranking.pairs(draws.asked, rewards, most=scout.PAIRS)
    asked = scout.send(spec, told, draws.asked, work, on_progress)
    features = _teacher(spec).features(_rows_of(asked))
    pairs, _ = ranking.pairs(
        [*draws.asked, *asked],
        [*rewards, *of_each(asked, ranking.reward.score(features))],
        most=effort_of(spec).pairs,
    )
    pairs += stuck_pairs(pairs, spec.seed)
    scouted = len(features)
    found = {"pairs": len(pairs), "scouted": scouted, "drawn": lesson.figures.drawn + scouted}
    return replace(lesson, pairs=pairs, figures=lesson.figures.model_copy(update=found))


def _teacher(spec: JobSpec) -> Teacher:
    texts = Texts(load_tokenizer(spec), spec.max_length)
    return Teacher(Drawer(spec, load_base(spec).eval(), texts))


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
    ) -> tuple[Lesson, Ranking]:
        """Fit and rank; `on_progress` gets a fraction of this call."""
        everything = self.opinions(
            [*examples, *held_out],
            lambda done: on_progress(0.8 * done, "reading what people said"),
        )
        on_progress(0.8, "ranking the replies")
        trained, held = everything.divided(*_counts(examples))
        contrary = contrary_people(trained)
        said = trained.turned(contrary)
        judged = foretold(said, self.spec.seed)
        wrong = wrong_shares(judged)
        reward = fit_reward(said, wrong)
        heard = [turned(one) if one.person in contrary else one for one in examples]
        z, voted = _length_z(heard), _voted(heard, reward.score(said.votes))
        about_length = z > LENGTH_MATTERS and z >= figures.judged_z(judged)
        ranking = Ranking(reward, voted, any_length=about_length)
        rewards = _rewards(draws, reward)
        pairs, likely = ranking.pairs(draws.asked, rewards, most=effort_of(self.spec).pairs)
        pairs += stuck_pairs(pairs, self.spec.seed)
        found = RewardFigures(
            accuracy=figures.person_bootstrap(figures.accuracy, judged, self.spec.seed),
            p_value=chance_of_luck(everything, self.spec.seed),
            tested=len(everything.labels) + len(everything.chosen),
            style=reward.style(),
            length_z=z,
            about_length=about_length,
            prompts=len(draws.asked),
            drawn=sum(len(one.options) for one in draws.asked),
            pairs=len(pairs),
            liked=share_liked(np.concatenate(rewards)),
            likely=likely,
            contrary=sorted(contrary),
            wrong={person: round(share, 2) for person, share in wrong.items()},
        )
        return Lesson(pairs, draws.anchors, reward, found, _rated(held, reward)), ranking

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


def _rated(said: Opinions, reward: Reward) -> list[float]:
    """Return the rewards of what was voted on, then of both replies of each pair."""
    sides = np.stack([reward.score(said.chosen), reward.score(said.rejected)], axis=1)
    return [*reward.score(said.votes).tolist(), *sides.ravel().tolist()]


def _rows_of(asked: Sequence[Asked]) -> list[tuple[Prompt, Option]]:
    return [(one.prompt, option) for one in asked for option in one.options]


def _rewards(draws: Draws, reward: Reward) -> list[Floats]:
    """Return the rewards of each prompt's replies."""
    features = _with_style(draws.states, _rows_of(draws.asked))
    return of_each(draws.asked, reward.score(features))


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


def turned(example: Example) -> Example:
    """Return a vote or a pair the other way round; what somebody wrote stays as it is."""
    match example:
        case VoteExample():
            return example.model_copy(update={"label": not example.label})
        case PairExample():
            sides = {
                "chosen": example.rejected,
                "chosen_complete": example.rejected_complete,
                "rejected": example.chosen,
                "rejected_complete": example.chosen_complete,
            }
            return example.model_copy(update=sides)
    return example


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
