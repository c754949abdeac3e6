"""Whole stories of those who look after the bot on a simulated Discord, and of who may not."""

from __future__ import annotations

import contextvars
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import discord
import pytest_asyncio
from discord import AppCommandOptionType, AppCommandType, app_commands
from simcord.results import ResponseMessage

from bot.discord.wording import adapters as adapter_words
from bot.discord.wording import common
from bot.discord.wording import feedback as feedback_words
from bot.discord.wording import training as words
from bot.discord.wording import votes as vote_words
from bot.world import World, open_world
from core.settings import Settings
from tests.bot.discord.conftest import Town
from tests.bot.discord.test_adapters import refusals
from tests.bot.discord.test_story import (
    let_all_learn,
    newest,
    press,
    pressed,
    say,
    seen,
    told,
    use,
    whispered,
)
from tests.bot.discord.test_training import OutsideLearning, add_votes, text_of
from trainer.launchers.local import LocalLauncher

PUBLIC = {
    "arena",
    "chat",
    "privacy export",
    "privacy forget",
    "privacy opt-in",
    "privacy opt-out",
    "privacy show",
    "reset",
}
"""The commands that are for everybody; every other one is an admin's."""
PUBLIC_MENUS = {"Reply to this"}


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    """An open world whose training runs keep real time."""
    async with open_world(settings, lambda _: None) as opened:
        learning = OutsideLearning(opened.database, settings, opened.base, LocalLauncher())
        learning._outside = contextvars.copy_context()
        yield replace(opened, learning=learning)


async def shown(town: Town, command: str, /, **options: object) -> ResponseMessage:
    """Let the admin use a command; return the answer, which is theirs alone."""
    result = await town.admin.slash(town.channel, command, **options)
    answer = result.followups[0] if result.followups else result.response
    assert answer is not None
    assert answer.ephemeral
    return answer


async def said_in(town: Town, command: str, /, **options: object) -> str:
    """Let the admin use a command that answers with an embed; return what it says."""
    return text_of((await shown(town, command, **options)).embeds[0])


async def writer_of_next(town: Town) -> object:
    """Let Ada speak to the bot; return which version answered, by the reply's row."""
    await say(town, town.ada, "Who are you?")
    rows = await town.rows("SELECT adapter FROM replies ORDER BY at DESC, rowid DESC")
    return rows[0]["adapter"]


async def test_an_admin_trains_looks_and_moves_versions(town: Town) -> None:
    """From the first look to a version that speaks, is taken back, and speaks again."""
    await let_all_learn(town)
    assert await press(town.ada, await say(town, town.ada, "Hello"), "up") == vote_words.UP
    assert await press(town.bob, await say(town, town.bob, "Hi"), "down") == vote_words.DOWN
    told_ada = whispered(town.channel, town.ada)
    await town.world.database.run(lambda db: add_votes(db, 24, town.scope))
    assert words.waiting(26, 8) in await said_in(town, "training status")
    plan = await said_in(town, "retrain", dry_run=True)
    assert words.PLAN_TITLE in plan
    assert await town.rows("SELECT id FROM runs") == []

    await town.admin.slash(town.channel, "retrain")
    (run,) = await town.rows("SELECT state, adapter FROM runs")
    name = f"{town.scope}@v1"
    assert run == {"state": "promoted", "adapter": name}
    panel = newest(town.channel, town.bob)
    assert words.NEXT["promoted"] in text_of(panel.embeds[0])
    assert words.speaks(name) in text_of(panel.embeds[0])
    assert panel.components == []
    assert words.waiting(0, 0) in await said_in(town, "training status")

    assert adapter_words.who_speaks(name, "base") in await said_in(town, "adapter list")
    compared = await said_in(town, "adapter compare")
    assert "Version 1" in compared
    assert "Base model" in compared
    page = await said_in(town, "adapter show", name="v1")
    assert adapter_words.STATES["live"].capitalize() in page
    assert "examples by" in page
    assert await writer_of_next(town) == name

    back = await town.admin.slash(town.channel, "adapter rollback")
    assert back.response is not None
    assert back.response.ephemeral
    assert back.response.content == adapter_words.done("base")
    who = town.admin.mention
    assert seen(town.channel, town.bob)[-1] == adapter_words.rolled_back(who, "base", name)
    assert await writer_of_next(town) == "base"
    asked = await shown(town, "adapter promote", name="v1")
    assert asked.content == adapter_words.confirm(name, "base")
    assert await writer_of_next(town) == "base"
    await town.admin.click(asked, label=adapter_words.PROMOTE)
    assert asked.content == adapter_words.done(name)
    assert seen(town.channel, town.bob)[-1] == adapter_words.now_speaks(who, name, "base")
    assert await writer_of_next(town) == name
    assert whispered(town.channel, town.ada) == told_ada


async def test_an_admin_reviews_and_takes_the_votes_along(town: Town) -> None:
    """What was dropped in the review is in no file; whoever did not opt in never was."""
    await let_all_learn(town)
    reply = await say(town, town.ada, "What is tea?")
    form = await pressed(town.ada, reply, "edit")
    await town.ada.submit_modal(form, {"text": "A drink."})
    asked_why = told(await pressed(town.bob, reply, "down"))
    await town.bob.click(asked_why, label=vote_words.REASON_LABELS["wrong"])
    assert (await press(town.admin, reply, "up")).startswith(vote_words.UP)

    stats = await said_in(town, "feedback stats")
    assert feedback_words.kinds(up=1, down=1, corrections=1, choices=0, again=0) in stats
    assert f"{feedback_words.FIELDS['may_train']}: 2" in stats
    assert feedback_words.may_not("no consent", 1) in stats

    ticket = await shown(town, "feedback review")
    assert "A drink." in text_of(ticket.embeds[0])
    await town.admin.click(ticket, label=feedback_words.ACTIONS["accept"])
    while town.bob.mention not in text_of(ticket.embeds[0]):
        await town.admin.click(ticket, label=feedback_words.ACTIONS["skip"])
    await town.admin.click(ticket, label=feedback_words.ACTIONS["drop"])
    rows = await town.rows("SELECT kind, dropped FROM feedback WHERE reviewed_at ORDER BY at")
    assert rows == [{"kind": "correction", "dropped": 0}, {"kind": "down", "dropped": 1}]
    assert feedback_words.may_not("reviewed out", 1) in await said_in(town, "feedback stats")

    export = await shown(town, "feedback export", format="raw")
    assert export.content == feedback_words.exported(1, "raw")
    (line,) = (await export.attachments[0].read()).decode().splitlines()
    assert (json.loads(line)["signal"], json.loads(line)["correction"]) == (
        "correction",
        "A drink.",
    )
    assert whispered(town.channel, town.bob)[-1] == vote_words.reasons_kept(["wrong"])


def admins_commands(town: Town) -> dict[str, app_commands.Command[Any, ..., Any]]:
    """Return every command of the bot that is not for everybody, by name."""
    found = {
        command.qualified_name: command
        for command in town.bot.tree.walk_commands()
        if isinstance(command, app_commands.Command)
    }
    assert set(found) > PUBLIC
    return {name: command for name, command in sorted(found.items()) if name not in PUBLIC}


def required(town: Town, command: app_commands.Command[Any, ..., Any]) -> dict[str, object]:
    """Return a value for each option that a command must have."""
    values: dict[AppCommandOptionType, object] = {
        AppCommandOptionType.string: "v1",
        AppCommandOptionType.integer: 2,
        AppCommandOptionType.boolean: True,
        AppCommandOptionType.user: town.bob,
        AppCommandOptionType.channel: town.channel,
        AppCommandOptionType.role: town.guild.roles["Manager"],
    }
    return {
        one.display_name: one.choices[0].value if one.choices else values[one.type]
        for one in command.parameters
        if one.required
    }


async def let_through(town: Town) -> None:
    """Let Ada see every command, as a server can."""
    for command in await town.bot.tree.fetch_commands():
        town.guild.set_command_permissions(command, {town.ada: True})


async def everything(town: Town) -> dict[str, list[dict[str, object]]]:
    """Return all that is stored but the audit trail, and when somebody was last seen."""
    tables = await town.rows(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    )
    names = {str(table["name"]) for table in tables} - {"events"}
    rows = {name: await town.rows(f"SELECT * FROM {name}") for name in names}  # noqa: S608 # ours
    for person in rows["people"]:
        del person["last_seen"]
    return rows


async def test_a_stranger_is_refused_every_admin_command(town: Town) -> None:
    """Also where the server lets them see it: told so alone, written down, and nothing else."""
    commands = admins_commands(town)
    await let_all_learn(town)
    await let_through(town)
    before, told_before = await everything(town), whispered(town.channel, town.ada)
    for name, command in commands.items():
        assert await use(town, town.ada, name, **required(town, command)) == common.NOT_ALLOWED
    assert await everything(town) == before
    assert whispered(town.channel, town.ada)[len(told_before) :] == refusals(town)
    assert refusals(town) == [common.NOT_ALLOWED] * len(commands)
    assert seen(town.channel, town.ada) == []
    ada = (await town.bot.access.person(town.ada.id)).id
    events = await town.rows("SELECT action, detail FROM events WHERE actor = ? ORDER BY id", ada)
    uses = [json.loads(str(row["detail"])) for row in events if row["action"] == "discord.used"]
    assert [one["command"] for one in uses] == [f"/{name}" for name in commands]
    assert not any(one["allowed"] for one in uses)


async def test_admin_commands_are_hidden_from_strangers(town: Town) -> None:
    """Discord shows them to those who manage the server, on servers only."""
    roots = {command.root_parent or command for command in admins_commands(town).values()}
    for root in roots:
        assert root.default_permissions == discord.Permissions(manage_guild=True), root.name
        assert root.guild_only, root.name
    assert set(town.ada.available_commands(town.channel)) == PUBLIC
    assert set(town.admin.available_commands(town.channel)) == PUBLIC | set(admins_commands(town))
    menus = [*town.bot.tree.walk_commands(type=AppCommandType.message)]
    menus += [*town.bot.tree.walk_commands(type=AppCommandType.user)]
    assert {menu.name for menu in menus} == PUBLIC_MENUS


async def test_forms_opened_before_a_right_was_lost_change_nothing(town: Town) -> None:
    """Whoever sends a form is checked again; the attempt is written down under its own name."""
    await let_all_learn(town)
    correcting = await pressed(town.ada, await say(town, town.ada, "What is tea?"), "edit")
    await town.ada.submit_modal(correcting, {"text": "A drink."})
    persona = await town.admin.slash(town.channel, "settings persona")
    ticket = await shown(town, "feedback review")
    review = await town.admin.click(ticket, label=feedback_words.ACTIONS["edit"])
    guild = town.bot.get_guild(town.guild.id)
    assert guild is not None
    (manager,) = [role for role in guild.roles if role.name == "Manager"]
    await manager.edit(permissions=discord.Permissions.none())
    await town.env.settle()
    before = await everything(town)
    for form in (persona, review):
        assert form.modal is not None
        (field,) = form.modal["components"]
        name = str((field.get("component") or field["components"][0])["custom_id"])
        sent = await town.admin.submit_modal(form, {name: "NEEDLE"})
        assert told(sent).content == common.NOT_ALLOWED
    assert await everything(town) == before
    rows = await town.rows("SELECT detail FROM events WHERE action = 'discord.used' ORDER BY id")
    names = [json.loads(str(row["detail"]))["command"] for row in rows[-2:]]
    assert names == ["tt:persona", "tt:revise"]
