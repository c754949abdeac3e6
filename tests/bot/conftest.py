"""A world on the tiny model: real database, real engine, real services."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from bot.world import World, open_world
from core.records import Person
from core.settings import Settings

RELAXED_GATE = {
    "min_people": 1,
    "min_held_out": 2,
    "min_each_side": 1,
    "max_p_value": 1.0,
    "min_accuracy": 0.0,
    "min_gain": -1000.0,
    "max_keep_drop": 1.0,
    "max_perplexity_ratio": 1000.0,
    "max_kl": 1000.0,
    "max_length_ratio": 1000.0,
    "max_repetition_rise": 1.0,
    "max_empty": 1.0,
}
"""A random two-layer model cannot keep what it never had: the bounds are tested in tests/trainer.
"""


def tiny_settings(data_dir: Path, model: Path, **gate: object) -> Settings:
    """Settings for a world on the tiny model in float32, one thread for everybody."""
    return Settings.model_validate(
        {
            "data_dir": data_dir,
            "model": {"source": str(model), "dtype": "float32", "device": "cpu"},
            "serving": {"threads": 1, "max_batch": 4, "max_queue": 4, "max_context_tokens": 512},
            "chat": {"max_tokens": 24},
            "training": {"threads": 1, "nice": 0, "min_examples": 4, "max_length": 256},
            "gate": {**RELAXED_GATE, **gate},
        }
    )


@pytest.fixture
def settings(tmp_path: Path, tiny_model: Path) -> Settings:
    """Settings of an empty world."""
    return tiny_settings(tmp_path / "world", tiny_model)


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    """An open world."""
    async with open_world(settings, lambda _: None) as opened:
        yield opened


@pytest_asyncio.fixture
async def ada(world: World) -> Person:
    """A person who consented."""
    return await world.database.run(
        lambda db: db.people.ensure("console", "ada", display_name="Ada", consent="given")
    )
