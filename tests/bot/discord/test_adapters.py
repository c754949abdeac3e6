"""Versions looked after on Discord: seen by admins of their server, moved only as confirmed."""

from __future__ import annotations

import json
from pathlib import Path

import discord
import pytest
import simcord
from simcord.env import Env
from simcord.results import InteractionResult, ResponseMessage

from bot.discord.wording import adapters as words
from bot.discord.wording import common
from bot.world import World
from core.errors import ThumbtuneError
from core.generation import Sampling
from core.settings import Settings
from storage.database import Database
from tests.bot.discord.conftest import Town, discord_settings, make_bot
from tests.bot.test_arena import publish, speak, spoil


async def use(
    town: Town, command: str, /, person: simcord.MemberActor | None = None, **options: str
) -> InteractionResult:
    """Use /adapter as the admin, or as somebody else."""
    return await (person or town.admin).slash(town.channel, f"adapter {command}", **options)


def told(result: InteractionResult) -> ResponseMessage:
    """Return the private answer."""
    shown = result.followups[-1] if result.followups else result.response
    assert shown is not None
    assert shown.ephemeral
    return shown


def public(town: Town) -> list[str]:
    """Return what everybody can read in the square."""
    return [message.content for message in town.channel.history(viewer=town.ada)]


def refusals(town: Town) -> list[str]:
    """Return what the bot refused on purpose; anything else it raised fails the test."""
    raised = [getattr(error, "original", error) for error in town.env.errors]
    assert all(isinstance(error, ThumbtuneError) for error in raised)
    return [str(error) for error in raised]


async def speaking(town: Town) -> str:
    """Say which version writes the next reply."""
    return await town.world.registry.speaking(town.scope)


async def live_row(town: Town) -> object:
    """Return the scope's pointer as it is stored."""
    (row,) = await town.rows("SELECT live FROM scopes WHERE name = ?", town.scope)
    return row["live"]


async def vote(town: Town, adapter: str, *, up: int, down: int) -> None:
    """Store thumbs of as many people on replies of a version."""
    people = [await town.bot.access.person(7000 + n) for n in range(up + down)]

    def stored(db: Database) -> None:
        talk = db.conversations.open(town.scope, person_id=people[0].id)
        reply = db.replies.start(
            conversation_id=talk,
            scope=town.scope,
            prompt=(),
            adapter=adapter,
            sampling=Sampling(),
            kept=False,
        )
        db.replies.finish(
            reply.id,
            text="",
            seed=0,
            finish_reason="stop",
            prompt_tokens=1,
            tokens=1,
            first_token_s=0.1,
            total_s=0.2,
            in_history=False,
        )
        for number, person in enumerate(people):
            db.feedback.vote(reply.id, person.id, "up" if number < up else "down")

    await town.world.database.run(stored)


async def test_promotion_is_confirmed_then_told_to_everybody(town: Town) -> None:
    """Nothing moves before the button; then the next reply is the version's, and all are told."""
    name = await publish(town.world, 1, scope=town.scope)
    asked = told(await use(town, "promote", name="v1"))
    assert asked.content == words.confirm(name, "base")
    assert await live_row(town) is None
    result = await town.admin.click(asked.message, label=words.PROMOTE)
    assert result.acknowledged
    assert await live_row(town) == name
    assert await speaking(town) == name
    assert public(town) == [words.now_speaks(town.admin.mention, name, "base")]
    await town.ada.send(town.channel, f"{town.mention} hello")
    (reply,) = await town.rows("SELECT adapter FROM replies")
    assert reply["adapter"] == name
    (event,) = await town.rows("SELECT actor FROM events WHERE action = 'adapter.promoted'")
    assert event["actor"] == (await town.bot.access.person(town.admin.id)).id


async def test_cancel_changes_nothing(town: Town) -> None:
    """The other button of the pair leaves everything as it was and takes the buttons away."""
    await publish(town.world, 1, scope=town.scope)
    asked = told(await use(town, "promote", name="v1"))
    await town.admin.click(asked.message, label=words.CANCEL)
    assert await live_row(town) is None
    assert public(town) == []


async def test_rollback_is_immediate_and_goes_both_ways(town: Town) -> None:
    """Rollback says what speaks now, publicly; base can be promoted like any version."""
    name = await publish(town.world, 1, scope=town.scope)
    await speak(town.world, name, town.scope)
    await use(town, "rollback")
    assert await speaking(town) == "base"
    assert public(town) == [words.rolled_back(town.admin.mention, "base", name)]
    await use(town, "rollback")
    assert await speaking(town) == name
    asked = told(await use(town, "promote", name="base"))
    await town.admin.click(asked.message, label=words.PROMOTE)
    assert await speaking(town) == "base"


async def test_rollback_with_nothing_before(town: Town) -> None:
    """A server where only the base ever spoke is told so, and no scope is made by asking."""
    assert told(await use(town, "rollback")).content == words.NOTHING_BEFORE
    assert told(await use(town, "promote", name="base")).content == words.ALREADY_SPEAKS
    assert await town.rows("SELECT * FROM scopes") == []


async def test_a_stranger_is_refused(town: Town) -> None:
    """Somebody without the right changes nothing, also where Discord lets them use the command."""
    await publish(town.world, 1, scope=town.scope)
    with pytest.raises(simcord.SetupError):
        await use(town, "promote", person=town.ada, name="v1")
    (adapter,) = [one for one in await town.bot.tree.fetch_commands() if one.name == "adapter"]
    town.guild.set_command_permissions(adapter, {town.ada: True})
    for command, options in (("promote", {"name": "v1"}), ("rollback", {}), ("list", {})):
        result = await use(town, command, person=town.ada, **options)
        assert told(result).content == common.NOT_ALLOWED
    assert refusals(town) == [common.NOT_ALLOWED] * 3
    assert await town.ada.autocomplete(town.channel, "adapter promote", "name", "") == []
    assert await live_row(town) is None


async def test_a_right_that_was_lost_is_not_used(town: Town) -> None:
    """The button asks again who presses it: a right withdrawn meanwhile is gone."""
    await publish(town.world, 1, scope=town.scope)
    asked = told(await use(town, "promote", name="v1"))
    guild = town.bot.get_guild(town.guild.id)
    assert guild is not None
    (manager,) = [role for role in guild.roles if role.name == "Manager"]
    await manager.edit(permissions=discord.Permissions.none())
    result = await town.admin.click(asked.message, label=words.PROMOTE)
    assert told(result).content == common.NOT_ALLOWED
    assert await live_row(town) is None


async def test_a_refused_version_needs_a_second_word(town: Town) -> None:
    """The reason is shown, only “Promote anyway” moves it, and the audit says it was forced."""
    name = await publish(town.world, 1, scope=town.scope, state="refused", detail="too few votes")
    asked = told(await use(town, "promote", name="v1"))
    assert "too few votes" in asked.content
    with pytest.raises(simcord.SetupError):
        await town.admin.click(asked.message, label=words.PROMOTE)
    await town.admin.click(asked.message, label=words.PROMOTE_ANYWAY)
    assert await speaking(town) == name
    (event,) = await town.rows("SELECT detail FROM events WHERE action = 'adapter.promoted'")
    assert json.loads(str(event["detail"]))["forced"] is True


async def test_a_version_refused_meanwhile_is_not_promoted(town: Town) -> None:
    """A button from before the refusal does not override it."""
    name = await publish(town.world, 1, scope=town.scope)
    asked = told(await use(town, "promote", name="v1"))
    await town.world.database.run(lambda db: db.adapters.set_state(name, "refused", actor="gate"))
    await town.admin.click(asked.message, label=words.PROMOTE)
    assert await live_row(town) is None


async def test_a_damaged_version_is_refused_and_the_old_one_speaks_on(town: Town) -> None:
    """Altered bytes are found before the flip; no path of the machine is shown."""
    first = await publish(town.world, 1, scope=town.scope)
    await speak(town.world, first, town.scope)
    second = await publish(town.world, 2, scope=town.scope)
    spoil(town.world, second)
    asked = told(await use(town, "promote", name="v2"))
    await town.admin.click(asked.message, label=words.PROMOTE)
    shown = town.channel.history(viewer=town.admin)[-1]
    assert shown.content == words.damaged(second, first)
    assert await speaking(town) == first
    assert await live_row(town) == first


async def test_servers_see_their_own_versions_only(town: Town, env: Env) -> None:
    """Another server's version is neither offered, shown nor moved, as if it did not exist."""
    name = await publish(town.world, 1, scope=town.scope)
    other = env.create_guild("Elsewhere")
    channel = other.create_text_channel("hall")
    role = other.create_role("Manager", permissions=discord.Permissions(manage_guild=True))
    admin = other.add_member(env.create_user("cleo"), roles=[role])
    offered = await admin.autocomplete(channel, "adapter promote", "name", "")
    assert [one["value"] for one in offered] == ["base"]
    for command in ("promote", "show"):
        result = await admin.slash(channel, f"adapter {command}", name=name)
        assert "there is no version" in told(result).content
    assert len(refusals(town)) == 2
    listed = told(await admin.slash(channel, "adapter list")).embeds[0]
    assert listed.description == words.LIST_EMPTY


async def test_list_show_and_compare(town: Town) -> None:
    """Figures stand where they belong: states, likes, who speaks, and a chart to look at."""
    first = await publish(town.world, 1, scope=town.scope)
    await speak(town.world, first, town.scope)
    await publish(town.world, 2, scope=town.scope)
    await vote(town, first, up=3, down=1)
    lines = str(told(await use(town, "list")).embeds[0].description).splitlines()
    assert [line[:6] for line in lines[:3]] == ["**v2**", "**v1**", "**base"]
    assert words.STATES["live"] in lines[1]
    assert "👍 3 👎 1 (75% of 4)" in lines[1]
    assert lines[-1] == words.who_speaks(first, "base")
    shown = told(await use(town, "show", name="1"))
    assert words.SHOW_NO_RUN in str(shown.embeds[0].description)
    assert [file.filename for file in shown.attachments] == ["likes.png"]
    compared = told(await use(town, "compare")).embeds[0]
    assert [field.name for field in compared.fields] == [
        "Version 2",
        "Version 1",
        words.FIELD_ARENA,
    ]
    assert "likely 30% to 95%" in str(compared.fields[1].value)
    assert compared.fields[2].value == words.NO_MATCHES


async def test_names_are_offered(town: Town) -> None:
    """Typing narrows the versions; whoever may not use the command is offered none."""
    for version in (1, 2):
        await publish(town.world, version, scope=town.scope)
    offered = await town.admin.autocomplete(town.channel, "adapter promote", "name", "2")
    assert [one["value"] for one in offered] == [f"{town.scope}@v2"]


class TestShared:
    """Where the operator lets all servers share one adapter."""

    @pytest.fixture
    def settings(self, tmp_path: Path, tiny_model: Path) -> Settings:
        """Settings of a shared world."""
        return discord_settings(tmp_path / "world", tiny_model, scopes="shared")

    async def test_only_owners_move_what_all_servers_share(self, town: Town) -> None:
        """A server's admin may look, and is told who may change it; an owner may."""
        name = await publish(town.world, 1, scope=town.scope)
        for command, options in (("promote", {"name": "v1"}), ("rollback", {})):
            result = await use(town, command, **options)
            assert told(result).content == words.OWNERS_ONLY
        assert refusals(town) == [words.OWNERS_ONLY] * 2
        town.bot.access.owners |= {town.admin.id}
        asked = told(await use(town, "promote", name="v1"))
        await town.admin.click(asked.message, label=words.PROMOTE)
        assert await speaking(town) == name


async def test_the_buttons_work_after_a_restart(town: Town, world: World, env: Env) -> None:
    """The question may be answered by the bot's next process."""
    name = await publish(world, 1, scope=town.scope)
    asked = told(await use(town, "promote", name="v1"))
    await env.restart_bot(make_bot(world))
    await town.admin.click(asked.message, label=words.PROMOTE)
    assert await live_row(town) == name
