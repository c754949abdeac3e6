"""The whole story with vLLM writing the replies: chat, votes, training, promotion, rollback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bot.adapters import promote, roll_back
from bot.cli.doctor import CHECKS
from bot.world import World, open_world
from core.basemodel import identify_base
from core.errors import ModelError
from core.generation import BASE
from core.records import Person
from core.settings import Settings
from tests.bot.api.conftest import served_by
from tests.bot.conftest import tiny_settings
from tests.bot.test_learning import SCOPE, add_votes
from tests.bot.test_registry import publish, spoken_by
from tests.vllm_double import VllmDouble


@pytest_asyncio.fixture
async def vllm(tiny_model: Path, tmp_path: Path) -> AsyncIterator[VllmDouble]:
    """A running server with the tiny base."""
    async with VllmDouble(identify_base("tiny", tiny_model, tmp_path)) as running:
        yield running


def settings_for(vllm: VllmDouble, home: Path, **about: Any) -> Settings:
    """Settings of a world whose replies that server writes."""
    own = tiny_settings(home / "world", vllm.base.path)
    told = {"backend": "vllm", "remote_url": vllm.url, "vllm_adapters": str(home / "shared")}
    serving = own.serving.model_copy(update={**told, **about})
    return own.model_copy(update={"serving": serving})


async def person(world: World) -> Person:
    """Return somebody who consented."""
    return await world.database.run(
        lambda db: db.people.ensure("console", "ada", display_name="Ada", consent="given")
    )


async def test_a_bot_learns_and_vllm_speaks(vllm: VllmDouble, tmp_path: Path) -> None:
    """Each reply's row says who wrote it, through a rollback and a restart of either side."""
    settings = settings_for(vllm, tmp_path)
    async with open_world(settings, lambda _: None) as world:
        ada = await person(world)
        talk = await world.chat.open(SCOPE, ada)
        first = await (await world.chat.say(talk, ada.id, "Hello")).finished()
        await world.feedback.down(first.id, ada.id)
        assert first.adapter == BASE and first.tokens > 0
        await world.database.run(add_votes)
        outcome = await world.learning.retrain(SCOPE, actor="test")
        assert (outcome.run.state, outcome.run.adapter) == ("promoted", "console@v1")
        await world.registry.sync()
        assert await spoken_by(world, ada) == "console@v1"
        (name,) = vllm.names()
        assert name.startswith("console@v1-")
        await roll_back(world.database, world.settings.data_dir, SCOPE, actor="test")
        await world.registry.sync()
        assert await spoken_by(world, ada) == BASE
        await roll_back(world.database, world.settings.data_dir, SCOPE, actor="test")
        await world.registry.sync()
        await vllm.restart()
        assert await spoken_by(world, ada) == "console@v1" and vllm.names() == {name}
    async with open_world(settings, lambda _: None) as world:
        assert await spoken_by(world, await person(world)) == "console@v1"
        assert vllm.names() == {name}


async def test_a_version_that_vllm_refuses_is_taken_back(vllm: VllmDouble, tmp_path: Path) -> None:
    """With its words; what spoke before speaks on."""
    async with open_world(settings_for(vllm, tmp_path), lambda _: None) as world:
        ada = await person(world)
        assert await spoken_by(world, ada) == BASE
        name = await publish(world, 1, seed=1)
        vllm.options.max_lora_rank = 2
        await promote(world.database, world.settings.data_dir, name, actor="test")
        await world.registry.sync()
        assert await spoken_by(world, ada) == BASE
        record = await world.database.run(lambda db: db.adapters.get(name))
        assert record.state == "refused" and "--max-lora-rank" in record.detail


async def test_the_doctor_looks_at_the_engine(vllm: VllmDouble, tmp_path: Path) -> None:
    """In a line what was found, or what to change; wherever the engine is."""
    look = dict(CHECKS)["engine"]
    settings = settings_for(vllm, tmp_path)
    assert "adapters up to rank 16" in await look(settings)
    local = settings.serving.model_copy(update={"backend": "local"})
    assert (await look(settings.model_copy(update={"serving": local}))).startswith("local")
    vllm.options.enable_lora = False
    with pytest.raises(ModelError, match="--enable-lora"):
        await look(settings)
    far_settings = tiny_settings(tmp_path / "far", vllm.base.path)
    async with open_world(far_settings, lambda _: None) as far, served_by(far) as served:
        told = {"backend": "remote", "remote_url": f"{served.url}/v1"}
        remote = settings.serving.model_copy(update=told)
        assert "the same base" in await look(settings.model_copy(update={"serving": remote}))
