"""A small world for the benchmarks' tests: settings and a community that fit the tiny model.

The tiny model babbles; the taste `flowing` likes most of that and dislikes some.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.learning.arms import World
from benchmarks.learning.pool import BaseReply
from core.settings import Settings
from tests.bot.conftest import RELAXED_GATE

TASTE = "flowing"
PROMPTS = [f"What is thing number {n} for?" for n in range(700)]
UNSEEN = ["What is an unseen thing for?", "Who has seen it?"]


def small_settings() -> Settings:
    """Settings under which a run takes few examples and little time, and any adapter lives."""
    training = {"threads": 1, "min_examples": 4, "max_length": 128, "lora_rank": 4}
    return Settings.model_validate({"training": training, "gate": RELAXED_GATE})


def small_base(model: Path) -> tuple[str, str, str]:
    """Name, hash and directory of a base model, as cells take them."""
    return "tiny", "0" * 64, str(model)


def small_world() -> World:
    """Half of the replies to the prompts are lists."""
    texts = ("It is for you.", "- one\n- two")
    return World(
        PROMPTS,
        {
            (prompt, draw): BaseReply(prompt, draw, texts[(n + draw) % 2], complete=True)
            for n, prompt in enumerate(PROMPTS)
            for draw in (0, 1)
        },
    )
