"""What a server sets for itself by /settings, as admins and others see it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import discord
import pytest
from simcord import SetupError
from simcord.env import Env

from bot.discord.places import Spot
from bot.discord.wording import common as common_words
from bot.discord.wording import settings as words
from bot.world import World
from tests.bot.discord.conftest import Town, make_bot


async def set_by(town: Town, command: str, **options: object) -> str:
    """Let the admin use a /settings command in the square; return what they are told."""
    result = await town.admin.slash(town.channel, f"settings {command}", **options)
    assert result.response is not None
    assert result.ephemeral
    return result.response.content


def here(town: Town) -> Spot:
    """The square."""
    return Spot(town.guild.id, town.channel.id)


async def test_others_neither_see_nor_use_the_commands(town: Town) -> None:
    """Discord hides them; a role named for the area is let in once the server shows them."""
    assert not [name for name in town.ada.available_commands(town.channel) if "settings" in name]
    with pytest.raises(SetupError):
        await town.ada.slash(town.channel, "settings show")


async def test_a_loosened_command_is_still_refused(town: Town) -> None:
    """A server may show the command to everybody; the bot checks again, and writes it down."""
    commands = await town.bot.tree.fetch_commands()
    settings = next(command for command in commands if command.name == "settings")
    town.guild.set_command_permissions(settings, {town.guild.default_role: True})
    refused = await town.ada.slash(town.channel, "settings show")
    assert refused.response is not None
    assert refused.response.content == common_words.NOT_ALLOWED
    assert [str(error) for error in town.env.errors] == [common_words.NOT_ALLOWED]
    helper = town.guild.create_role("Helper")
    await set_by(town, "roles", area="settings", role=helper, action="add")
    cleo = town.guild.add_member(town.env.create_user("cleo"), roles=[helper])
    allowed = await cleo.slash(town.channel, "settings show")
    assert words.HEAD_SERVER in allowed.response.content
    uses = await town.rows("SELECT detail FROM events WHERE action = 'discord.used' ORDER BY id")
    assert [json.loads(str(row["detail"]))["allowed"] for row in uses] == [False, True, True]


async def test_show_names_each_value_and_its_source(town: Town) -> None:
    """A channel's value goes before the server's, the server's before the operator's."""
    await set_by(town, "style", temperature=1.5, length=40)
    await set_by(town, "style", temperature=0.5, channel=town.channel)
    shown = await set_by(town, "show")
    assert "Temperature: **0.5** (set for this channel)" in shown
    assert "Longest reply, in tokens: **40** (set for this server)" in shown
    assert "Persona: **the model's own** (the operator's setting)" in shown
    assert "Training: **off** (the default)" in shown
    style = await town.bot.places.style(here(town))
    assert (style.sampling.temperature, style.sampling.max_tokens) == (0.5, 40)


async def test_a_change_tells_old_and_new(town: Town) -> None:
    """Only what is given changes; leaving both out takes the wider setting again."""
    await set_by(town, "style", temperature=1.5)
    told = await set_by(town, "style", temperature=0.25)
    assert "Temperature for this server: 1.5 → **0.25**" in told
    told = await set_by(town, "style", length=40)
    assert told == "Longest reply for this server: the wider setting → **40**"
    assert (await town.bot.places.server(here(town))).temperature == 0.25
    told = await set_by(town, "style")
    assert "0.25 → **the wider setting**" in told
    row = await town.rows("SELECT settings FROM places WHERE key = ?", here(town).server_key)
    assert row == [{"settings": "{}"}]


async def test_a_reply_longer_than_the_model_can_hold_is_refused(town: Town) -> None:
    """The sentence names the room there is, and nothing is changed."""
    assert await set_by(town, "style", length=4096) == words.too_long(512)
    assert (await town.bot.places.server(here(town))).max_tokens is None


async def test_a_persona_by_option_and_by_form(town: Town) -> None:
    """A short one is typed with the command, a long one in a form that holds the present one."""
    told = await set_by(town, "persona", text="You are *brief*.")
    assert "the wider setting → **You are \\*brief\\*.**" in told
    form = await town.admin.slash(town.channel, "settings persona")
    assert form.modal is not None
    assert "You are *brief*." in str(form.modal)
    done = await town.admin.submit_modal(form, {"text": "You are a pirate.\nAlways."})
    assert done.response.content.startswith("Persona for this server: You are")
    assert (await town.bot.places.style(here(town))).persona == "You are a pirate.\nAlways."
    form = await town.admin.slash(town.channel, "settings persona")
    await town.admin.submit_modal(form, {"text": ""})
    assert (await town.bot.places.server(here(town))).persona is None


async def test_a_personas_form_may_be_sent_after_a_restart(town: Town) -> None:
    """The form says which channel it is about, so the next bot takes it as well."""
    form = await town.admin.slash(town.channel, "settings persona", channel=town.channel)
    await town.env.restart_bot(make_bot(town.world))
    done = await town.admin.submit_modal(form, {"text": "You are a pirate."})
    assert done.response.content.startswith("Persona for <#")
    assert (await town.bot.places.channel(here(town))).persona == "You are a pirate."


async def test_listening_changes_whom_the_bot_answers(town: Town) -> None:
    """With `all` every message is answered, with `off` not even a mention."""
    await set_by(town, "listen", mode="all")
    await town.ada.send(town.channel, "good morning")
    assert len(town.channel.history()) == 2
    assert await set_by(town, "listen", mode="off") == words.changed(
        "Listening", town.channel.mention, "all", "off"
    )
    await town.ada.send(town.channel, f"{town.mention} hello?")
    assert len(town.channel.history()) == 3


async def test_training_says_what_it_means_and_sets_the_scope(town: Town) -> None:
    """The server's switch is also the scope's, and both can be taken back."""
    assert await set_by(town, "training", state="on") == words.TRAINING_ON
    assert await _scope_trains(town)
    assert await set_by(town, "training", state="off") == words.TRAINING_OFF
    assert not await _scope_trains(town)


async def _scope_trains(town: Town) -> bool:
    scope = await town.world.database.run(lambda db: db.scopes.get(town.scope))
    return scope.training_enabled


async def test_roles_are_added_and_removed(town: Town) -> None:
    """Adding twice or removing what is not there says so and changes nothing."""
    role = town.guild.create_role("Teacher")
    assert role.mention in await set_by(town, "roles", area="training", role=role, action="add")
    again = await set_by(town, "roles", area="training", role=role, action="add")
    assert again == words.role_known("training", role.mention)
    assert (await town.bot.places.server(here(town))).roles == {"training": (role.id,)}
    gone = await set_by(town, "roles", area="training", role=role, action="remove")
    assert gone == words.roles("training", [])
    again = await set_by(town, "roles", area="training", role=role, action="remove")
    assert again == words.role_unknown("training", role.mention)


async def test_the_log_channel_hears_of_each_use(town: Town) -> None:
    """From then on every admin command is told there, without a ping."""
    log = town.guild.create_text_channel("log")
    assert log.mention in await set_by(town, "log", channel=log)
    await set_by(town, "arena", one_in=7)
    assert log.last_message.content == common_words.log_line(
        town.admin.mention, "/settings arena", allowed=True
    )
    assert "→ **none**" in await set_by(town, "log")


async def test_a_blocked_person_is_not_answered(town: Town) -> None:
    """Blocking holds for the server, is listed, and can be taken back."""
    assert await set_by(town, "block", user=town.ada) == words.blocked(town.ada.mention)
    await town.ada.send(town.channel, f"{town.mention} hello?")
    assert len(town.channel.history()) == 1
    assert town.ada.mention in await set_by(town, "blocked")
    assert await set_by(town, "unblock", user=town.ada) == words.unblocked(town.ada.mention)
    assert await set_by(town, "unblock", user=town.ada) == words.not_blocked(town.ada.mention)
    assert await set_by(town, "blocked") == words.NONE_BLOCKED
    await town.ada.send(town.channel, f"{town.mention} hello?")
    assert len(town.channel.history()) == 3


async def test_reset_all_asks_first_and_keeps_where_the_talk_began(town: Town) -> None:
    """Everything is back to the default but the point that /reset left."""
    await set_by(town, "training", state="on")
    await set_by(town, "style", temperature=1.0, channel=town.channel)
    await town.ada.slash(town.channel, "reset")
    point = await town.bot.places.reset_after(here(town))
    asked = await town.admin.slash(town.channel, "settings reset-all")
    assert asked.response.content == words.CONFIRM_RESET
    await town.admin.click(asked.response, label=words.KEEP)
    assert (await town.bot.places.server(here(town))).training
    asked = await town.admin.slash(town.channel, "settings reset-all")
    await town.admin.click(asked.response, label=words.RESET_NOW)
    assert not (await town.bot.places.server(here(town))).training
    assert not await _scope_trains(town)
    assert (await town.bot.places.channel(here(town))).temperature is None
    assert await town.bot.places.reset_after(here(town)) == point


async def test_without_the_intent_listening_to_all_says_what_lacks(
    env: Env, town: Town, world: World
) -> None:
    """The mode is stored, and the person is told how to make it work."""
    await env.restart_bot(make_bot(world, message_content=False))
    told = await set_by(town, "listen", mode="join", one_in=5)
    assert told.endswith(words.NO_CONTENT)
    assert "join (one message in 5)" in told


async def test_every_command_in_the_guide_exists(town: Town) -> None:
    """docs/discord.md names no command, and no subcommand, that nobody could use."""
    guide = (Path(__file__).parents[3] / "docs" / "discord.md").read_text(encoding="utf-8")
    there = {command.qualified_name for command in town.bot.tree.walk_commands()}
    groups = {name.split()[0] for name in there if " " in name}
    named = re.findall(r"`/([a-z-]+)(?: ([a-z-]+))?", guide)
    assert len(named) > 20
    for root, sub in named:
        wanted = f"{root} {sub}" if root in groups and sub else root
        assert wanted in there, wanted


async def test_every_command_is_in_the_guide(town: Town) -> None:
    """Nobody has to find a command by chance."""
    guide = (Path(__file__).parents[3] / "docs" / "discord.md").read_text(encoding="utf-8")
    for command in town.bot.tree.walk_commands():
        if not isinstance(command, discord.app_commands.Group):
            assert f"`/{command.qualified_name}" in guide or f"`{command.name}" in guide
