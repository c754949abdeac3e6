"""The whole stories once more, with the replies written by an engine elsewhere, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from bot.world import open_world
from core.settings import Settings
from tests.bot.api.conftest import served_by
from tests.bot.conftest import tiny_settings
from tests.bot.discord.conftest import discord_settings
from tests.bot.discord.test_story import (  # noqa: F401 # the stories, and what they stand on
    process,
    test_a_version_asked_for_after_a_restart_goes_with_its_people,
    test_corrections_and_versions_make_pairs_over_restarts,
    test_no_version_is_stored_once_the_server_switched_training_off,
    test_two_people_vote_in_a_thread_and_change_their_minds,
    world,
)


@pytest_asyncio.fixture
async def settings(tmp_path: Path, tiny_model: Path) -> AsyncIterator[Settings]:
    """Settings of a world whose engine is another world's, on a socket."""
    far = tiny_settings(tmp_path / "far", tiny_model)
    async with open_world(far, lambda _: None) as elsewhere, served_by(elsewhere) as served:
        near = discord_settings(tmp_path / "world", tiny_model)
        remote = {"backend": "remote", "remote_url": f"{served.url}/v1"}
        yield near.model_copy(update={"serving": near.serving.model_copy(update=remote)})
