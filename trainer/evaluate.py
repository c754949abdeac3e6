"""Measure a trained candidate against the base and the live adapter: the figures of a job's report.

Everything is measured on what the candidate was not trained on: held-out feedback, the keep-set,
plain reference text, and replies drawn to held-out prompts. Says nothing about good enough (see
gate). Formulas, units and measured distributions: docs/gate.md.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from statistics import fmean, median
from typing import Any

from core.jobs import ChatMessage, Example, JobSpec
from core.report import Interval, Sample, SystemFigures
from trainer import figures
from trainer.best_of_n import Floats, Teacher
from trainer.draws import Drawer
from trainer.keepset import MAX_TOKENS, keep_parts, keep_score, load_keepset
from trainer.lesson import Lesson
from trainer.preference import Progress, Rate, Said, implicit_rewards, measure_preference
from trainer.ranked import Option
from trainer.reward import Reward
from trainer.sampling import Drawing, Drawn, draw_replies, draw_together
from trainer.scoring import (
    Scored,
    System,
    Systems,
    Texts,
    in_base_type,
    kl_to_base,
    perplexity,
)

LIVE = "live"
SAMPLES_SHOWN = 10
TEMPERATURE, TOP_P = 0.7, 0.95
AT_ONCE = 80
"""Replies drawn side by side: the keep-set's with the samples."""

Chat = list[dict[str, str]]


def evaluate_job(
    spec: JobSpec,
    model: Any,
    tokenizer: Any,
    held_out: Sequence[Example],
    *,
    lesson: Lesson | None = None,
    on_progress: Progress = lambda fraction, message: None,
) -> dict[str, Any]:
    """Return the Report's parts `reference`, `preference`, `systems` and `samples`.

    With the lesson of a recipe that ranks replies `preference` is of its reward model, and there
    are `gains`: by how much the candidate's drawn replies have more of that reward.

    `model` is a PeftModel with the candidate as its active adapter; the base is the same model with
    the adapter off. With `spec.live_path` the live adapter is loaded beside it for the time of the
    call. The weights are left as they were, the model in evaluation mode. `on_progress` gets a
    fraction of this call in [0, 1] and what is being measured.
    """
    model.eval()
    if spec.live_path:
        model.load_adapter(spec.live_path, adapter_name=LIVE, is_trainable=False)
    try:
        systems = Systems(model, LIVE if spec.live_path else None)
        prompts = sample_prompts(held_out, spec.sample_prompts, spec.seed)
        rated = lesson.rated if lesson else None
        bench = Bench(spec, systems, Texts(tokenizer, spec.max_length), prompts, rated)
        with in_base_type(model):
            parts = bench.measure(held_out, on_progress)
            if lesson is None:
                return parts
            return {**parts, "gains": bench.gains(lesson.reward, on_progress)}
    finally:
        if spec.live_path:
            model.delete_adapter(LIVE)


@dataclass
class Bench:
    """One evaluation under way: the systems, and the replies each has written so far.

    `rated` are the rewards of the held-out replies, where a reward model gave them.
    """

    spec: JobSpec
    systems: Systems
    texts: Texts
    prompts: list[Chat]
    rated: list[float] | None = None
    drawn: dict[System, list[Drawn]] = field(default_factory=dict)

    def measure(self, held_out: Sequence[Example], on_progress: Progress) -> dict[str, Any]:
        """Measure every part; writing replies takes most of the time."""
        first = _part(on_progress, 0.0, 0.2)
        preference = measure_preference(held_out, self.spec.seed, self._rate(first))
        names, measured = self.systems.names, {}
        for place, system in enumerate(names):
            start, end = (0.2 + 0.8 * at / len(names) for at in (place, place + 1))
            measured[system] = self._measure_system(system, _part(on_progress, start, end))
        on_progress(1.0, "measured")
        return {
            "reference": "live" if LIVE in names else "base",
            "preference": preference,
            "systems": measured,
            "samples": self._samples(),
        }

    def gains(self, reward: Reward, on_progress: Progress) -> dict[str, Interval]:
        """Return how much more reward the candidate's replies have than the base's (`gain`), and
        than the live adapter's (`over_live`), if there is one.

        Where more is seen, but not clearly, each prompt is answered once more, and both replies
        count: 32 prompts decide on little.
        """
        scores = self._scores(reward, self.drawn)
        found = self._over(scores)
        if not found["gain"].low <= 0 < found["gain"].value:
            return found
        again = {}
        for system in self.drawn:
            on_progress(1.0, f"more replies of the {system}: the gain is not clear")
            again[system] = self._draw(system, self.spec.seed + 1)
        more = self._scores(reward, again)
        return self._over({system: (own + more[system]) / 2 for system, own in scores.items()})

    def _scores(
        self, reward: Reward, drawn: Mapping[System, Sequence[Drawn]]
    ) -> dict[System, Floats]:
        """Return the rewards of each system's replies, prompt by prompt."""
        prompts = [[ChatMessage.model_validate(m) for m in prompt] for prompt in self.prompts]
        said = {
            system: [Option(self.texts.read(one.token_ids), one.finished) for one in replies]
            for system, replies in drawn.items()
        }
        return {
            system: self._rewards(reward, list(zip(prompts, options, strict=True)))
            for system, options in said.items()
        }

    def _over(self, scores: Mapping[System, Floats]) -> dict[str, Interval]:
        others: dict[System, str] = {"base": "gain", "live": "over_live"}
        return {
            name: figures.mean_bootstrap(scores["candidate"] - scores[other], self.spec.seed)
            for other, name in others.items()
            if other in scores
        }

    def _rate(self, on_progress: Progress) -> Rate:
        """Return what held-out replies are rated by: the reward model, where there is one."""
        rated = self.rated
        if rated is None:
            return implicit_rewards(self.systems, self.texts, on_progress)
        return lambda said: {"candidate": rated}

    def _rewards(self, reward: Reward, said: Sequence[Said]) -> Floats:
        with self.systems.using("base") as causal:
            return reward.score(Teacher(Drawer(self.spec, causal, self.texts)).features(said))

    def _measure_system(self, system: System, on_progress: Progress) -> SystemFigures:
        keep = self._answer(system, _part(on_progress, 0.0, 0.7))
        on_progress(0.7, f"perplexity of the {system}")
        plain = [self.texts.plain(text) for text in reference_texts()]
        return SystemFigures(
            **keep,
            **shape_figures(self.drawn[system], self._read(system)),
            perplexity=perplexity(self.systems, system, plain),
            kl_to_base=kl_to_base(
                self.systems,
                system,
                self._base_rows(),
                lambda done: on_progress(0.8 + 0.2 * done, f"distance of the {system}"),
            ),
        )

    def _answer(self, system: System, on_progress: Progress) -> dict[str, Any]:
        """Draw the sample replies and return the figures of the keep-set, answered beside them."""
        items = load_keepset()
        asked = [self.texts.prompt([{"role": "user", "content": item.prompt}]) for item in items]
        greedy = Drawing(self._ends(), MAX_TOKENS, batch=AT_ONCE)
        replies, self.drawn[system] = draw_together(
            self.systems,
            system,
            [(asked, greedy), (self._asked(), self._sampling(self.spec.seed))],
            on_progress=lambda done: on_progress(done, f"keep-set and samples, the {system}"),
        )
        said = [self.texts.read(reply.token_ids) for reply in replies]
        return {
            "keep_score": keep_score(items, said),
            "keep_n": len(items),
            "keep_parts": keep_parts(items, said),
        }

    def _draw(self, system: System, seed: int) -> list[Drawn]:
        return draw_replies(self.systems, system, self._asked(), self._sampling(seed))

    def _asked(self) -> list[list[int]]:
        return [self.texts.prompt(prompt) for prompt in self.prompts]

    def _sampling(self, seed: int) -> Drawing:
        most = self.spec.sample_max_tokens
        return Drawing(self._ends(), most, TEMPERATURE, TOP_P, seed, batch=AT_ONCE)

    def _base_rows(self) -> list[Scored]:
        """The base's own replies, as rows to score; an end token only where the base wrote one."""
        return [
            Scored(
                self.texts.prompt(prompt),
                [*reply.token_ids, *([self.texts.end_id] if reply.finished else [])],
            )
            for prompt, reply in zip(self.prompts, self.drawn["base"], strict=True)
        ]

    def _ends(self) -> frozenset[int]:
        return frozenset({self.texts.end_id})

    def _read(self, system: System) -> list[str]:
        return [self.texts.read(reply.token_ids) for reply in self.drawn[system]]

    def _samples(self) -> list[Sample]:
        said = {str(system): self._read(system) for system in self.drawn}
        return [
            Sample(
                prompt=prompt[-1]["content"],
                replies={system: replies[place] for system, replies in said.items()},
            )
            for place, prompt in enumerate(self.prompts[:SAMPLES_SHOWN])
        ]


def shape_figures(drawn: Sequence[Drawn], replies: Sequence[str]) -> dict[str, Any]:
    """Return the figures that need only the drawn replies; zeros if there are none."""
    ids = [reply.token_ids for reply in drawn]
    return {
        "median_words": float(median(len(reply.split()) for reply in replies)) if replies else 0.0,
        "repetition": fmean(map(figures.repeated_share, ids)) if ids else 0.0,
        "distinct_2": figures.distinct_share(ids),
        "empty": fmean(not reply for reply in replies) if replies else 0.0,
        "unfinished": fmean(not reply.finished for reply in drawn) if drawn else 0.0,
        "samples": len(drawn),
    }


def sample_prompts(held_out: Sequence[Example], limit: int, seed: int) -> list[Chat]:
    """Return up to `limit` different held-out prompts, drawn by `seed`, in the order they stand."""
    different: dict[str, list[dict[str, str]]] = {}
    for example in held_out:
        messages = [message.model_dump() for message in example.prompt]
        different.setdefault(json.dumps(messages, sort_keys=True), messages)
    prompts = list(different.values())
    kept = sorted(random.Random(seed).sample(range(len(prompts)), min(limit, len(prompts))))
    return [prompts[place] for place in kept]


def reference_texts() -> list[str]:
    """Return the paragraphs of the plain text perplexity is measured on."""
    text = files("trainer").joinpath("reference_text.txt").read_text(encoding="utf-8")
    return [paragraph.strip() for paragraph in text.split("\n\n") if paragraph.strip()]


def _part(on_progress: Progress, start: float, end: float) -> Progress:
    """Return a progress callback whose 0 to 1 is `start` to `end` of the whole."""
    return lambda fraction, message: on_progress(
        min(1.0, start + (end - start) * fraction), message
    )
