"""A version on trial, as a server sees it: shown to admins, ended by them or by all votes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bot.discord.places import Spot
from bot.discord.wording import adapters as words
from core.sections import CanarySettings
from core.settings import Settings
from storage.database import Database
from tests.bot.discord.conftest import Town, discord_settings
from tests.bot.discord.test_adapters import live_row, public, speaking, told, use
from tests.bot.discord.test_training import text_of
from tests.bot.test_arena import publish, speak
from tests.bot.test_canary import add_thumbs


@pytest.fixture
def settings(tmp_path: Path, tiny_model: Path) -> Settings:
    """Settings of a world that tries new versions on nine of ten new conversations."""
    plain = discord_settings(tmp_path / "world", tiny_model)
    return plain.model_copy(update={"canary": CanarySettings(share=0.9, max_votes=60)})


async def on_trial(town: Town, share: float = 0.5, *, run_id: str | None = None) -> tuple[str, str]:
    """Let version 1 speak and put version 2 on trial; return both names."""
    live = await publish(town.world, 1, scope=town.scope)
    await speak(town.world, live, town.scope)
    name = await publish(town.world, 2, scope=town.scope, run_id=run_id)
    await town.world.database.run(
        lambda db: db.adapters.begin_trial(name, share=share, actor="gate")
    )
    await town.world.registry.sync()
    return live, name


async def decide(town: Town, canary: float, live: float) -> None:
    """Store votes with these shares of likes, and let them decide."""
    await town.world.canary.close()
    likes = {True: canary, False: live}
    await town.world.database.run(lambda db: add_thumbs(db, likes, scope=town.scope))
    await town.world.canary.look()


async def test_a_trial_is_shown_where_versions_are(town: Town) -> None:
    """List, the version's page and the training's status say how it stands; others' pages not."""
    live, name = await on_trial(town)
    await town.world.canary.close()
    votes = {True: 0.5, False: 0.5}
    await town.world.database.run(lambda db: add_thumbs(db, votes, count=8, scope=town.scope))
    liked = words.trial_liked(name, 2, 2, live, 2, 2)
    for command in ("list", "show"):
        page = told(await use(town, command, **({"name": "v2"} if command == "show" else {})))
        assert liked in text_of(page.embeds[0])
        assert "answers 50% of new conversations" in text_of(page.embeds[0])
    status = told(await town.admin.slash(town.channel, "training status")).embeds[0]
    assert status.fields[-1].name == words.FIELD_TRIAL
    assert liked in str(status.fields[-1].value)
    other = told(await use(town, "show", name="v1")).embeds[0]
    assert liked not in text_of(other)


async def test_a_chain_of_replies_stays_with_its_version(town: Town) -> None:
    """Each chain is answered to its end by whoever was drawn for it."""
    await on_trial(town, share=0.5)
    for number in range(4):
        await town.ada.send(town.channel, f"{town.mention} question {number}")
        for person in (town.bob, town.ada):
            await person.send(town.channel, "and then?", reply_to=town.channel.last_message)
    rows = await town.rows(
        "SELECT conversation_id, count(DISTINCT adapter) AS n FROM replies GROUP BY 1"
    )
    assert [row["n"] for row in rows] == [1] * 4
    (parts,) = await town.rows("SELECT count(*) AS n FROM trial_replies")
    assert parts["n"] == 12


async def test_an_admin_ends_a_trial(town: Town) -> None:
    """Rollback takes the version on trial back, not who is live, and everybody is told."""
    live, name = await on_trial(town)
    await use(town, "rollback")
    assert public(town) == [words.trial_ended(town.admin.mention, name, live)]
    assert (await live_row(town), await speaking(town)) == (live, live)
    (row,) = await town.rows("SELECT canary FROM scopes WHERE name = ?", town.scope)
    assert row["canary"] is None


async def test_an_admin_promotes_before_the_votes_do(town: Town) -> None:
    """The question says that the trial ends with it."""
    live, name = await on_trial(town)
    asked = told(await use(town, "promote", name="v2"))
    assert asked.content == f"{words.confirm(name, live)}\n\n{words.ends_trial(name)}"
    await town.admin.click(asked.message, label=words.PROMOTE)
    assert await speaking(town) == name
    assert public(town) == [words.now_speaks(town.admin.mention, name, live)]


async def test_the_votes_promotion_is_told_where_the_run_was_shown(town: Town) -> None:
    """The channel of the run hears who speaks now, and by which votes."""

    def stored(db: Database) -> str:
        db.scopes.ensure(town.scope)
        run = db.runs.create(town.scope, recipe="auto", owner_pid=os.getpid())
        db.runs.show(run.id, str(town.channel.id), "1")
        return db.runs.advance(run.id, "canary").id

    run_id = await town.world.database.run(stored)
    live, name = await on_trial(town, run_id=run_id)
    await decide(town, 0.9, 0.2)
    assert await speaking(town) == name
    (line,) = public(town)
    assert line.startswith(words.decided_better(name, live, "").split(".")[0])
    assert "Version 2 was liked in" in line


@pytest.mark.parametrize(
    ("canary", "other", "text"),
    [(0.2, 0.9, words.decided_worse), (0.5, 0.5, words.decided_nothing)],
)
async def test_without_a_run_the_log_channel_is_told(
    town: Town, canary: float, other: float, text: object
) -> None:
    """Taken back or undecided: the live version speaks on, and admins read why."""
    log = town.guild.create_text_channel("log")
    spot = Spot(town.guild.id, town.channel.id)
    await town.bot.places.change_server(spot, "test", log_channel=log.id)
    live, name = await on_trial(town)
    await decide(town, canary, other)
    assert await speaking(town) == live
    assert public(town) == []
    last = log.last_message
    assert last is not None
    assert last.content.startswith(text(name, live, "").split(".")[0])  # type: ignore[operator]


async def test_a_server_that_goes_leaves_no_trial(town: Town) -> None:
    """The trial is closed with the server, also where the base was live."""
    name = await publish(town.world, 1, scope=town.scope)
    await town.world.database.run(lambda db: db.adapters.begin_trial(name, share=0.5, actor="g"))
    await town.world.registry.sync()
    await town.ada.send(town.channel, f"{town.mention} hello")
    cog = town.bot.get_cog("DeletionCog")
    await cog._remove_server(town.guild.id)  # type: ignore[union-attr]
    (trial,) = await town.rows("SELECT state FROM trials")
    (scope,) = await town.rows("SELECT canary FROM scopes WHERE name = ?", town.scope)
    assert (trial["state"], scope["canary"]) == ("undecided", None)
