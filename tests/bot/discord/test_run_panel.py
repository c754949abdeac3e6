"""A run's message on a simulated Discord: moved in time, followed over a restart, cancelled."""

from __future__ import annotations

import asyncio
import os

import discord

from bot.adapters import promote
from bot.discord.cogs.training import TrainingCog
from bot.discord.run_panel import ANSWER_S, RunPanel, Shown, shown_message
from bot.discord.wording import training as words
from core.generation import BASE
from core.jobs import PROGRESS, Progress
from tests.bot.discord.conftest import Town, make_bot
from tests.bot.discord.test_training import GONE, prepare, text_of
from tests.bot.test_arena import publish


def line(fraction: float, **more: object) -> Progress:
    """A line of progress."""
    values = {"at": "2026-01-01T00:00:00Z", "stage": "1-kto", "step": 1, "steps": 2}
    return Progress.model_validate({**values, "fraction": fraction, **more})


async def panel_of(town: Town) -> tuple[RunPanel, list[float]]:
    """A panel over a message in the square for a run nobody drives, and its clock."""
    await prepare(town, votes=1)
    run = await town.world.database.run(
        lambda db: db.runs.create(town.scope, recipe="auto", owner_pid=GONE)
    )
    channel = town.bot.get_channel(town.channel.id)
    assert isinstance(channel, discord.TextChannel)
    message = await channel.send("…")
    now = [0.0]
    shown = Shown(message, shown_message(message).key, until=ANSWER_S)
    await town.world.database.run(lambda db: db.runs.show(run.id, str(channel.id), str(message.id)))
    panel = RunPanel(
        town.bot, town.scope, shown, channel=channel, clock=lambda: now[0], run_id=run.id
    )
    return panel, now


async def test_after_fourteen_minutes_the_progress_moves(town: Town) -> None:
    """A new message goes on, the old one links it, and the database knows the new one."""
    panel, now = await panel_of(town)
    await panel.catch_up([line(0.1, loss=0.7)])
    first = town.channel.last_message
    now[0] = ANSWER_S + 1
    await panel.catch_up([line(0.1, loss=0.7), line(0.5, loss=0.6)])
    await town.env.settle()
    second = town.channel.last_message
    assert second.id != first.id
    assert "50%" in second.embeds[0].description
    assert second.attachments
    before = town.channel.history()[-2]
    assert before.content == words.moved(second.jump_url)
    (shown,) = await town.rows("SELECT message_id FROM run_messages")
    assert shown["message_id"] == str(second.id)


async def test_where_it_may_not_write_the_progress_stops_with_a_word(town: Town) -> None:
    """Without the right to post, the old message says where to look, and no more edits follow."""
    panel, now = await panel_of(town)
    now[0] = ANSWER_S + 1
    town.env.inject_error("POST", "/channels/*/messages", status=403, code=50013)
    await panel.catch_up([line(0.5)])
    assert town.channel.last_message.content == words.NO_CHANNEL
    await panel.catch_up([line(0.5), line(0.6)])
    assert town.channel.last_message.content == words.NO_CHANNEL


async def test_a_run_that_goes_on_over_a_restart_is_followed(town: Town) -> None:
    """A new bot edits the message of the run that something else drives, to its end."""
    panel, _ = await panel_of(town)
    await panel.catch_up([line(0.1)])
    (run,) = await town.world.database.run(lambda db: db.runs.active())
    cog = town.bot.get_cog("TrainingCog")
    assert isinstance(cog, TrainingCog)
    cog._mended = False  # what a new process begins with
    directory = town.world.settings.data_dir / run.directory
    directory.mkdir(parents=True)
    (directory / PROGRESS).write_text(line(0.6).model_dump_json() + "\n", encoding="utf-8")
    await town.world.database.run(lambda db: db.runs.advance(run.id, "training"))
    await cog.on_shard_ready(0)
    await asyncio.sleep(0.5)
    assert "60%" in text_of(town.channel.last_message.embeds[0])
    await town.world.database.run(lambda db: db.runs.advance(run.id, "failed", detail="no room"))
    await cog.watch()
    said = text_of(town.channel.last_message.embeds[0])
    assert words.BROKEN in said
    assert "no room" in said
    cog.watch.cancel()


async def test_who_is_said_to_speak_at_the_end_does(town: Town) -> None:
    """A run that something else drove ends with its adapter's name; the next reply is by it."""
    panel, _ = await panel_of(town)
    world, scope = town.world, town.scope
    name = await publish(world, 1, scope=scope)
    assert await world.registry.speaking(scope) == BASE
    await promote(world.database, world.settings.data_dir, name, scope=scope, actor="test")
    (run,) = await world.database.run(lambda db: db.runs.active())
    await panel.end(run)
    assert await world.registry.speaking(scope) == name
    assert words.speaks(name) in text_of(town.channel.last_message.embeds[0])


async def test_an_interrupted_run_goes_on_after_a_restart(town: Town) -> None:
    """What a stop cut off is taken up again in its message, and told to its end."""
    await panel_of(town)
    (run,) = await town.world.database.run(lambda db: db.runs.active())
    await town.world.database.run(
        lambda db: db.runs.take_over(run.id, os.getpid()) and db.runs.advance(run.id, "interrupted")
    )
    await town.env.restart_bot(make_bot(town.world))
    await town.env.settle()
    assert "too little to learn from" in text_of(town.channel.last_message.embeds[0])
    (row,) = await town.rows("SELECT state FROM runs")
    assert row["state"] == "refused"


async def test_the_button_under_a_run_cancels_it(town: Town) -> None:
    """An admin's press asks for the end; a stranger's is refused."""
    panel, _ = await panel_of(town)
    await panel.catch_up([line(0.1)])
    (run,) = await town.world.database.run(lambda db: db.runs.active())
    button = f"tt:cancelrun:{run.id}"
    refused = await town.ada.click(town.channel.last_message, custom_id=button)
    assert "look after me" in refused.response.content
    assert not (await town.world.database.run(lambda db: db.runs.get(run.id))).cancel_requested
    done = await town.admin.click(town.channel.last_message, custom_id=button)
    assert done.response.content == words.CANCELLING
    assert (await town.world.database.run(lambda db: db.runs.get(run.id))).cancel_requested
