"""Training on a simulated Discord: dry runs, real runs with their message, cancel, schedules."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import discord
import pytest
import pytest_asyncio

from bot.discord.places import Spot
from bot.discord.wording import training as words
from bot.driver import Outcome
from bot.learning import LearningService
from bot.schedule import own_votes
from bot.world import World, open_world
from core.generation import Message
from core.settings import Settings
from storage.database import Database
from storage.imports import ImportedSignal
from tests.bot.discord.conftest import Town, discord_settings
from trainer.launchers.local import LocalLauncher

GONE = 2**22 + 1
"""The id of a process that cannot be."""


class OutsideLearning(LearningService):
    """Learning whose runs keep real time: a training process knows nothing of simulated time."""

    _outside: contextvars.Context

    async def retrain(self, scope: str, **options: Any) -> Outcome:
        """Run as always, in a task that the simulator does not take for the bot's."""
        run = super().retrain(scope, **options)
        return await self._outside.copy().run(asyncio.create_task, run)


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    """An open world whose training runs keep real time."""
    async with open_world(settings, lambda _: None) as opened:
        learning = OutsideLearning(opened.database, settings, opened.base, LocalLauncher())
        learning._outside = contextvars.copy_context()
        yield replace(opened, learning=learning)


def add_votes(db: Database, count: int, scope: str) -> None:
    """Six people like short replies and dislike long ones."""
    for index in range(count):
        liked = index % 3 == 0
        db.imports.add(
            ImportedSignal(
                scope=scope,
                user=f"person{index % 6}",
                prompt=(Message("user", f"Question number {index}?"),),
                reply=f"Yes {index}." if liked else f"No, and a long story about {index}.",
                kind="up" if liked else "down",
                at=f"2026-01-01T00:00:{index:02}.000000Z",
            )
        )


async def prepare(town: Town, votes: int = 24) -> None:
    """Switch training on and store votes of six people."""
    spot = Spot(town.guild.id, town.channel.id)
    await town.bot.places.change_server(spot, "test", training=True)
    await town.world.database.run(lambda db: add_votes(db, votes, town.scope))


def text_of(embed: discord.Embed) -> str:
    """All that an embed says."""
    return "\n".join(
        [
            embed.title or "",
            embed.description or "",
            *(f"{field.name}: {field.value}" for field in embed.fields),
        ]
    )


async def test_a_stranger_may_not_train(town: Town) -> None:
    """Somebody without rights finds no command, and nothing is started."""
    assert "retrain" not in town.ada.available_commands(town.channel)
    assert "retrain" in town.admin.available_commands(town.channel)


async def test_a_dry_run_shows_what_would_be_learnt_from(town: Town) -> None:
    """Counts, recipe and split, to the admin alone; no run is stored."""
    await prepare(town)
    result = await town.admin.slash(town.channel, "retrain", dry_run=True)
    assert result.ephemeral
    said = text_of(result.followups[0].embeds[0] if result.followups else result.response.embeds[0])
    assert words.PLAN_TITLE in said
    assert "👍 6" in said
    assert await town.rows("SELECT id FROM runs") == []


async def test_a_dry_run_without_votes_says_what_is_missing(town: Town) -> None:
    """Too little to learn from is a sentence with both figures."""
    result = await town.admin.slash(town.channel, "retrain", dry_run=True)
    assert "too little to learn from" in said_in(result)


async def test_without_the_switch_nothing_starts(town: Town) -> None:
    """An admin is told which switch is off."""
    result = await town.admin.slash(town.channel, "retrain")
    assert result.response.content == words.SERVER_OFF
    assert await town.rows("SELECT id FROM runs") == []


async def test_a_run_is_shown_to_its_end(town: Town) -> None:
    """The answer becomes the run's message: edited, then final, with who speaks now."""
    await prepare(town)
    result = await town.admin.slash(town.channel, "retrain")
    (run,) = await town.rows("SELECT id, state, detail FROM runs")
    assert run["state"] == "promoted", run["detail"]
    (shown,) = await town.rows("SELECT * FROM run_messages")
    assert shown["message_id"] == str(result.response.id)
    edits = [request for request in town.env.http_requests if request.method == "PATCH"]
    assert len(edits) > 2
    said = text_of(result.response.embeds[0])
    assert f"`{town.scope}@v1`" in said
    assert words.NEXT["promoted"] in said
    assert result.response.components == []
    history = await town.admin.slash(town.channel, "training history")
    assert "Accepted" in text_of(history.response.embeds[0])


async def test_too_few_votes_end_a_run_as_refused(town: Town) -> None:
    """A run with too little to learn from says so where its progress would be."""
    await prepare(town, votes=3)
    result = await town.admin.slash(town.channel, "retrain")
    assert "too little to learn from" in text_of(result.response.embeds[0])
    (run,) = await town.rows("SELECT state FROM runs")
    assert run["state"] == "refused"


async def test_a_second_run_is_refused(town: Town) -> None:
    """While a run goes on, /retrain says so, and /training status shows the first."""
    await prepare(town)
    await town.world.database.run(
        lambda db: db.runs.create(town.scope, recipe="auto", owner_pid=GONE)
    )
    result = await town.admin.slash(town.channel, "retrain")
    assert result.response.content == words.RUNNING_ALREADY
    status = await town.admin.slash(town.channel, "training status")
    assert "Getting ready, 0 %" in text_of(status.response.embeds[0])


async def test_cancel_asks_the_run_to_stop(town: Town) -> None:
    """The command marks this server's run; without one it says that there is none."""
    result = await town.admin.slash(town.channel, "training cancel")
    assert result.response.content == words.NOTHING_RUNS
    await prepare(town)
    await town.world.database.run(
        lambda db: db.runs.create(town.scope, recipe="auto", owner_pid=GONE)
    )
    result = await town.admin.slash(town.channel, "training cancel")
    assert result.response.content == words.CANCELLING
    (run,) = await town.rows("SELECT cancel_requested FROM runs")
    assert run["cancel_requested"] == 1


async def test_the_schedule_is_the_servers_own(town: Town) -> None:
    """A number is stored for this scope, and shown."""
    await prepare(town)
    result = await town.admin.slash(town.channel, "training schedule", votes=40)
    assert result.response.content == words.schedule_set(40, 3)
    assert await town.world.database.run(lambda db: own_votes(db, town.scope)) == 40
    shown = await town.admin.slash(town.channel, "training schedule")
    assert "40 new signals" in shown.response.content


class TestWithoutPermission:
    """The operator holds no permission to train on what is written on Discord."""

    @pytest.fixture
    def settings(self, tmp_path: Path, tiny_model: Path) -> Settings:
        """No permission."""
        return discord_settings(tmp_path / "world", tiny_model, training_permission="")

    async def test_a_plan_with_nothing_says_why(self, town: Town) -> None:
        """Both the dry run and the real one name the missing permission."""
        dry = await town.admin.slash(town.channel, "retrain", dry_run=True)
        assert said_in(dry) == words.NO_PERMISSION


class TestShared:
    """All servers share one adapter."""

    @pytest.fixture
    def settings(self, tmp_path: Path, tiny_model: Path) -> Settings:
        """One scope for all servers."""
        return discord_settings(tmp_path / "world", tiny_model, scopes="shared")

    async def test_only_owners_may_train(self, town: Town) -> None:
        """A server's admin is refused."""
        result = await town.admin.slash(town.channel, "retrain")
        assert result.response.content == words.OWNERS_ONLY
        assert await town.rows("SELECT id FROM runs") == []
        result = await town.admin.slash(town.channel, "training schedule", votes=4)
        assert result.response.content == words.OWNERS_ONLY
        assert len(town.env.errors) == 2  # refusals, told and nothing else


def said_in(result: object) -> str:
    """The text of an answer, deferred or not."""
    messages = [*result.followups, result.response]  # type: ignore[attr-defined]
    return next(message.content for message in messages if message and message.content)
