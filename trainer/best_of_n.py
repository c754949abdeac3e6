"""Best of n: fit a reward model to what people said, and rank the base's own replies by it.

The pairs this gives are what the DPO stage of a `bon` recipe learns from (Nakano et al. 2021 rank
by a reward model at each reply; here an adapter learns to do without). What is found out about the
votes on the way goes into the report.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.files import publish_directory
from core.jobs import (
    ChatMessage,
    Example,
    JobSpec,
    PairExample,
    VoteExample,
    read_examples,
    write_examples,
)
from core.report import RewardFigures
from trainer import figures
from trainer.figures import Judged
from trainer.model import load_base, load_tokenizer
from trainer.ranked import (
    LENGTH_MATTERS,
    Asked,
    Option,
    anchor_pairs,
    better_and_worse,
    length_z,
)
from trainer.reward import Opinions, Reward, Rows, contrary_people, fit_reward, out_of_fold
from trainer.sampling import Drawing, draw_replies
from trainer.scoring import Scored, System, Texts
from trainer.split import prompt_key
from trainer.states import Overheard, reply_states
from trainer.style import style_features

DRAWS_AT_ONCE = {"cpu": 64, "cuda": 512}
CACHE_BYTES = {"cpu": 1 << 30, "cuda": 4 << 30}
"""Replies drawn side by side: that many at most, and as their keys and values find room."""
TEMPERATURE, TOP_P = 0.8, 0.95

_PAIRS, _FIGURES, _REWARD = "pairs.jsonl", "figures.json", "reward.npz"

Progress = Callable[[float, str], None]
Floats = NDArray[np.float64]
Prompt = Sequence[ChatMessage]


@dataclass(frozen=True, slots=True)
class Lesson:
    """What the votes became: pairs to train on, the reward that ranked them, and its figures."""

    pairs: list[PairExample]
    reward: Reward
    figures: RewardFigures


def read_lesson(directory: Path) -> Lesson | None:
    """Return a lesson kept before; None if there is none."""
    if not directory.exists():
        return None
    pairs = [one for one in read_examples(directory / _PAIRS) if isinstance(one, PairExample)]
    found = RewardFigures.model_validate_json((directory / _FIGURES).read_bytes())
    return Lesson(pairs, Reward.load(directory / _REWARD), found)


def learn(spec: JobSpec, examples: Sequence[Example], kept: Path, on_progress: Progress) -> Lesson:
    """Return the lesson kept in a directory, or make it and keep it there."""
    lesson = read_lesson(kept)
    if lesson is None:
        texts = Texts(load_tokenizer(spec), spec.max_length)
        lesson = Teacher(spec, load_base(spec).eval(), texts).teach(examples, on_progress)
        keep_lesson(kept, lesson)
    return lesson


def keep_lesson(directory: Path, lesson: Lesson) -> None:
    """Keep a lesson, whole or not at all."""

    def fill(path: Path) -> None:
        write_examples(path / _PAIRS, lesson.pairs)
        lesson.reward.save(path / _REWARD)
        (path / _FIGURES).write_text(lesson.figures.model_dump_json(), encoding="utf-8")

    publish_directory(directory, fill)


@dataclass
class Teacher:
    """The base, without an adapter, at work on one job's examples."""

    spec: JobSpec
    causal: Any
    texts: Texts

    def teach(self, examples: Sequence[Example], on_progress: Progress) -> Lesson:
        """Fit, draw, rank; `on_progress` gets a fraction of this call."""
        reading, drawing, ranking = "reading what people said", "drawing replies", "ranking them"
        everything = self.opinions(examples, lambda done: on_progress(0.15 * done, reading))
        contrary = contrary_people(everything)
        said = everything.without(contrary)
        reward, judged = fit_reward(said), foretold(said, self.spec.seed)
        heard = [example for example in examples if example.person not in contrary]
        asked, features = self._draw(heard, lambda done: on_progress(0.15 + 0.8 * done, drawing))
        on_progress(1.0, ranking)
        z = _length_z(heard)
        pairs = better_and_worse(
            asked,
            [reward.score(of_prompt) for of_prompt in features],
            most=self.spec.ranked_pairs,
            any_length=z > LENGTH_MATTERS,
        )
        pairs += self._anchors()
        found = RewardFigures(
            accuracy=figures.person_bootstrap(figures.accuracy, judged, self.spec.seed),
            p_value=figures.permutation_p(judged, self.spec.seed),
            style=reward.style(),
            length_z=z,
            prompts=len(asked),
            drawn=sum(len(one.options) for one in asked),
            pairs=len(pairs),
            contrary=sorted(contrary),
        )
        return Lesson(pairs, reward, found)

    def _ids(self, prompt: Prompt) -> list[int]:
        return self.texts.prompt([message.model_dump() for message in prompt])

    def features(
        self,
        rows: Sequence[tuple[Prompt, Option]],
        on_progress: Callable[[float], None] = lambda fraction: None,
    ) -> Floats:
        """Return the features of finished replies to prompts.  # (N, D)"""
        scored = [
            Scored(self._ids(prompt), self.texts.reply(option.text, complete=option.complete))
            for prompt, option in rows
        ]
        return _with_style(reply_states(self.causal, scored, on_progress), rows)

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

    def _draw(
        self, examples: Sequence[Example], on_progress: Callable[[float], None]
    ) -> tuple[list[Asked], list[Floats]]:
        """Let the base answer people's prompts, each several times; with each prompt's features."""
        prompts = list({prompt_key(example): example.prompt for example in examples}.values())
        count = min(len(prompts), self.spec.ranked_prompts)
        chosen = sorted(random.Random(self.spec.seed).sample(range(len(prompts)), count))
        each = max(self.spec.draws, round(self.spec.draws * self.spec.ranked_prompts / count / 2))
        shown = [prompts[place] for place in chosen for _ in range(each)]
        with Overheard(self.causal, len(shown)) as states:
            options = self._say(
                shown, TEMPERATURE, TOP_P, on_progress=on_progress, on_token=states.heard
            )
        features = _with_style(states.averages(), list(zip(shown, options, strict=True)))
        asked = [
            Asked(tuple(prompts[place]), tuple(options[start : start + each]))
            for start, place in zip(range(0, len(options), each), chosen, strict=True)
        ]
        return asked, np.split(features, len(asked))

    def _anchors(self) -> list[PairExample]:
        """Return plain questions with what the base would say first, against what it might say.

        They hold on to what it knows: both replies are its own, and neither is of anybody's taste.
        """
        lines = files("trainer").joinpath("anchors.txt").read_text(encoding="utf-8").splitlines()
        count = min(len(lines), self.spec.anchors)
        chosen = random.Random(self.spec.seed).sample(lines, count)
        prompts = [(ChatMessage(role="user", content=line),) for line in chosen]
        likeliest, drawn = self._say(prompts, 0.0, 1.0), self._say(prompts, 1.0, 1.0)
        return anchor_pairs(prompts, likeliest, drawn)

    def _say(
        self, prompts: Sequence[Prompt], temperature: float, top_p: float, **told: Any
    ) -> list[Option]:
        """Let the base answer each of the prompts; `told` is as of `draw_replies`."""
        ids = [self._ids(prompt) for prompt in prompts]
        drawing = Drawing(
            end_ids=frozenset({self.texts.end_id}),
            max_tokens=self.spec.sample_max_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=self.spec.seed,
            batch=self._at_once(max(map(len, ids))),
        )
        drawn = draw_replies(Base(self.causal), "base", ids, drawing, **told)
        return [Option(self.texts.read(one.token_ids), one.finished) for one in drawn]

    def _at_once(self, longest: int) -> int:
        """Return how many replies to prompts of so many tokens are drawn side by side."""
        config = self.causal.config.get_text_config()
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        kind = "cuda" if self.causal.device.type == "cuda" else "cpu"
        token = 2 * config.num_hidden_layers * heads * head * self.causal.dtype.itemsize
        room = CACHE_BYTES[kind] // int(token * (longest + self.spec.sample_max_tokens))
        return max(1, min(DRAWS_AT_ONCE[kind], room))


def _with_style(states: Floats, rows: Sequence[tuple[Prompt, Option]]) -> Floats:
    """Return the states with the plain counts beside them.  # (N, D)"""
    style = [
        style_features(prompt[-1].content, option.text, complete=option.complete)
        for prompt, option in rows
    ]
    return np.concatenate([states, np.array(style)], axis=1)


class Base:
    """A model without adapters, as trainer.sampling takes one."""

    def __init__(self, causal: Any) -> None:
        self.causal, self.device = causal, causal.device

    @contextmanager
    def using(self, system: System) -> Iterator[Any]:
        """Yield the model, without gradients."""
        with torch.inference_mode():
            yield self.causal


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
