"""Replies the base draws to people's prompts, each prompt several times, and what it makes of them.

Drawn once for a job and kept beside its other work, so that a run that was stopped does not draw
again. Does not know what anybody likes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
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
from trainer.effort import effort_of
from trainer.fit import free_bytes
from trainer.ranked import Asked, Option, anchor_pairs
from trainer.sampling import Drawing, Drawn, draw_replies, draw_together
from trainer.scoring import System, Texts, contiguous_head
from trainer.split import prompt_key, prompts_of
from trainer.states import Overheard

DRAWS_AT_ONCE = {"cpu": 128, "cuda": 512}
CACHE_BYTES = {"cpu": 5 << 28, "cuda": 4 << 30}
"""Replies drawn side by side: that many at most, and as their keys and values find room, in that
much or half of what is free.
"""
TEMPERATURE, TOP_P = 0.8, 0.95

_ASKED, _STATES, _ANCHORS = "asked.jsonl", "states.npy", "anchors.jsonl"

Floats = NDArray[np.float64]
Prompt = Sequence[ChatMessage]


@dataclass(frozen=True, slots=True)
class Draws:
    """Prompts with the base's replies, and the states of each reply, prompt after prompt.

    `anchors` are pairs of other replies of its own, to hold on to what it knows.
    """

    asked: list[Asked]
    states: Floats  # (replies, LAYERS · hidden)
    anchors: list[PairExample]

    def keep(self, directory: Path) -> None:
        """Keep them, whole or not at all."""

        def fill(path: Path) -> None:
            lines = [json.dumps(_written(one), ensure_ascii=False) + "\n" for one in self.asked]
            (path / _ASKED).write_text("".join(lines), encoding="utf-8")
            np.save(path / _STATES, self.states.astype(np.float32))
            write_examples(path / _ANCHORS, self.anchors)

        publish_directory(directory, fill)

    @classmethod
    def read(cls, directory: Path) -> Draws:
        """Return what was kept."""
        lines = (directory / _ASKED).read_text(encoding="utf-8").split("\n")[:-1]
        states = np.load(directory / _STATES).astype(np.float64)
        anchors = [
            one for one in read_examples(directory / _ANCHORS) if isinstance(one, PairExample)
        ]
        return cls([_asked(json.loads(line)) for line in lines], states, anchors)


def prompts_to_ask(spec: JobSpec, examples: Sequence[Example]) -> list[Prompt]:
    """Return which prompts of these examples the base is to answer, those of liked replies first.

    A liked reply is one more to learn from (see trainer.ranked), and what people like is rare.
    """
    prompts = prompts_of(examples)
    liked = {prompt_key(one) for one in examples if isinstance(one, VoteExample) and one.label}
    order = random.Random(spec.seed).sample(list(prompts), len(prompts))
    order.sort(key=lambda key: key not in liked)
    chosen = set(order[: effort_of(spec).asked(len(order))])
    return [prompt for key, prompt in prompts.items() if key in chosen]


@dataclass
class Drawer:
    """A model answering: the base, or one with an adapter in its layers, which then is on."""

    spec: JobSpec
    causal: Any
    texts: Texts

    def draw(self, prompts: Sequence[Prompt], on_progress: Callable[[float], None]) -> Draws:
        """Answer each prompt several times, and listen to what the model makes of its replies."""
        with Overheard(self.causal, len(prompts) * self._each(prompts)) as states:
            asked = self.answer(prompts, on_progress, on_token=states.heard)
        return Draws(asked, states.averages(), self.anchors())

    def answer(
        self, prompts: Sequence[Prompt], on_progress: Callable[[float], None], **told: Any
    ) -> list[Asked]:
        """Answer each prompt several times, more often where there are few prompts."""
        each = self._each(prompts)
        shown = [prompt for prompt in prompts for _ in range(each)]
        options = self.say(shown, TEMPERATURE, TOP_P, on_progress=on_progress, **told)
        return [
            Asked(tuple(prompt), tuple(options[place * each : (place + 1) * each]))
            for place, prompt in enumerate(prompts)
        ]

    def _each(self, prompts: Sequence[Prompt]) -> int:
        return effort_of(self.spec).times_each(len(prompts))

    def anchors(self) -> list[PairExample]:
        """Return plain questions with what the base would say first, against what it might say.

        They hold on to what it knows: both replies are its own, and neither is of anybody's taste.
        """
        lines = files("trainer").joinpath("anchors.txt").read_text(encoding="utf-8").splitlines()
        count = min(len(lines), effort_of(self.spec).anchors)
        chosen = random.Random(self.spec.seed).sample(lines, count)
        prompts = [(ChatMessage(role="user", content=line),) for line in chosen]
        ids = [self.ids(prompt) for prompt in prompts]
        ways = [(ids, self._drawing(ids, temperature, 1.0)) for temperature in (0.0, 1.0)]
        likeliest, drawn = map(self._read, draw_together(_Base(self.causal), "base", ways))
        return anchor_pairs(prompts, likeliest, drawn)

    def say(
        self, prompts: Sequence[Prompt], temperature: float, top_p: float, **told: Any
    ) -> list[Option]:
        """Answer each of the prompts; `told` is as of `draw_replies`."""
        ids = [self.ids(prompt) for prompt in prompts]
        drawing = self._drawing(ids, temperature, top_p)
        return self._read(draw_replies(_Base(self.causal), "base", ids, drawing, **told))

    def _drawing(self, ids: Sequence[Sequence[int]], temperature: float, top_p: float) -> Drawing:
        return Drawing(
            end_ids=frozenset({self.texts.end_id}),
            max_tokens=self.spec.sample_max_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=self.spec.seed,
            batch=self.at_once(max(map(len, ids))),
        )

    def _read(self, drawn: Sequence[Drawn]) -> list[Option]:
        return [Option(self.texts.read(one.token_ids), one.finished) for one in drawn]

    def ids(self, prompt: Prompt) -> list[int]:
        """Return a prompt's tokens."""
        return self.texts.prompt([message.model_dump() for message in prompt])

    def at_once(self, longest: int) -> int:
        """Return how many replies to prompts of so many tokens are drawn side by side."""
        config = self.causal.config.get_text_config()
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        kind = "cuda" if self.causal.device.type == "cuda" else "cpu"
        token = 2 * config.num_hidden_layers * heads * head * self.causal.dtype.itemsize
        cache = min(CACHE_BYTES[kind], free_bytes(kind) // 2)
        room = cache // int(token * (longest + self.spec.sample_max_tokens))
        return max(1, min(DRAWS_AT_ONCE[kind], room))


class _Base:
    """A model without adapters, as trainer.sampling takes one."""

    def __init__(self, causal: Any) -> None:
        self.causal, self.device = causal, causal.device

    @contextmanager
    def using(self, system: System) -> Iterator[Any]:
        """Yield the model, without gradients."""
        with torch.inference_mode(), contiguous_head(self.causal):
            yield self.causal


def _written(one: Asked) -> dict[str, Any]:
    return {
        "prompt": [message.model_dump() for message in one.prompt],
        "options": [asdict(option) for option in one.options],
    }


def _asked(row: dict[str, Any]) -> Asked:
    prompt = tuple(ChatMessage.model_validate(message) for message in row["prompt"])
    return Asked(prompt, tuple(Option(**option) for option in row["options"]))
