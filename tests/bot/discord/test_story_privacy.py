"""Whole stories of what is kept of people on a simulated Discord, and how it goes again."""

from __future__ import annotations

import os

from bot.discord.wording import privacy as privacy_words
from bot.discord.wording import votes as words
from storage.database import Database
from tests.bot.discord.conftest import Town
from tests.bot.discord.test_story import (
    all_bytes,
    let_all_learn,
    newest,
    press,
    pressed,
    remembered,
    say,
    told,
    use,
    votes,
)
from tests.bot.test_arena import publish


async def holding(town: Town, text: str) -> set[str]:
    """Return the tables in which a text stands."""
    tables = await town.rows("SELECT name FROM sqlite_schema WHERE type = 'table'")
    found = {
        str(table["name"]): await town.rows(f"SELECT * FROM {table['name']}")  # noqa: S608 # ours
        for table in tables
    }
    return {name for name, rows in found.items() if text in str(rows)}


async def teach(town: Town) -> str:
    """Make a version that learnt from all that was said so far; return its name."""

    def trained(db: Database) -> str:
        run = db.runs.create(town.scope, recipe="auto", owner_pid=os.getpid())
        db.runs.set_examples(run.id, [row.feedback.id for row in db.feedback.rows(town.scope)])
        return db.runs.advance(run.id, "promoted").id

    run_id = await town.world.database.run(trained)
    return await publish(town.world, 1, scope=town.scope, run_id=run_id)


async def flagged(town: Town) -> list[object]:
    """Return the versions that wait to be replaced."""
    return [
        row["name"] for row in await town.rows("SELECT name FROM adapters WHERE needs_retraining")
    ]


async def test_a_person_comes_opts_out_comes_back_and_is_forgotten(town: Town) -> None:
    """At each step the person is told what is kept, and exactly that is in the file."""
    await let_all_learn(town)
    await say(town, town.bob, "PEBBLE")
    reply = await say(town, town.ada, "NEEDLE")
    assert await press(town.ada, reply, "up") == words.UP
    form = await pressed(town.ada, reply, "edit")
    assert (
        told(await town.ada.submit_modal(form, {"text": "NEEDLE too"})).content == words.CORRECTED
    )
    version = await teach(town)
    shown = await use(town, town.ada, "privacy show")
    assert privacy_words.consent_line("given") in shown
    assert privacy_words.stored(1, 1, 1) in shown
    assert privacy_words.learnt([version]) in shown
    assert await use(town, town.ada, "privacy export") == privacy_words.COPY_SENT
    sent = town.ada.user.dm_channel.last_message
    assert sent is not None
    assert (await sent.attachments[0].read()).count(b"NEEDLE") == 2

    assert version in await use(town, town.ada, "privacy opt-out")
    assert b"NEEDLE" not in all_bytes(town)
    assert "NEEDLE" not in remembered(town)
    assert await votes(town) == {(str(town.ada.id), "up")}
    assert await flagged(town) == [version]
    assert privacy_words.stored(0, 1, 0) in await use(town, town.ada, "privacy show")

    assert await use(town, town.ada, "privacy opt-in") == privacy_words.OPTED_IN
    reply = await say(town, town.ada, "NEEDLE again")
    assert await press(town.bob, reply, "down") == words.DOWN
    assert b"NEEDLE" in all_bytes(town)
    asked = told(await town.ada.slash(town.channel, "privacy forget"))
    assert asked.content == privacy_words.CONFIRM_FORGET
    done = told(await town.ada.click(asked, label=privacy_words.FORGET_NOW)).content
    assert done.startswith("Done: you are forgotten. Removed: 2 replies")
    assert version in done
    assert b"NEEDLE" not in all_bytes(town)
    assert str(town.ada.id).encode() not in all_bytes(town)
    assert "NEEDLE" not in remembered(town)
    assert await press(town.bob, reply, "up") == words.GONE
    assert b"PEBBLE" in all_bytes(town)
    assert "PEBBLE" in remembered(town)
    assert await votes(town) == set()
    shown = await use(town, town.ada, "privacy show")
    assert privacy_words.consent_line("unknown") in shown
    assert privacy_words.stored(0, 0, 0) in shown


async def test_what_is_deleted_on_discord_is_deleted_here(town: Town) -> None:
    """First one message with its reply; then the server itself, with all that was kept of it."""
    await let_all_learn(town)
    await use(town, town.admin, "settings persona", text="PERSONA")
    await say(town, town.bob, "PEBBLE")
    asked = await town.ada.send(town.channel, f"{town.mention} NEEDLE")
    reply = newest(town.channel, town.ada)
    assert await press(town.bob, reply, "up") == words.UP
    version = await teach(town)
    assert await holding(town, "NEEDLE") == {"replies"}
    await town.ada.delete(asked)
    assert await holding(town, "NEEDLE") == set()
    assert "NEEDLE" not in remembered(town)
    assert await votes(town) == set()
    assert await flagged(town) == [version]
    assert await press(town.bob, reply, "up") == words.GONE

    assert await holding(town, "PEBBLE") == {"replies"}
    assert await holding(town, "PERSONA") == {"places", "replies"}
    town.env.backend.emit("GUILD_DELETE", {"id": str(town.guild.id)})
    await town.env.settle()
    for kept in ("PEBBLE", "PERSONA"):
        assert await holding(town, kept) == set()
        assert kept not in remembered(town)
    assert await holding(town, str(town.guild.id)) == {"adapters", "events", "runs", "scopes"}
    assert await town.rows("SELECT training_enabled FROM scopes") == [{"training_enabled": 0}]


async def test_a_correction_that_waits_for_consent_goes_with_its_writer(town: Town) -> None:
    """Whoever opts out or is forgotten meanwhile finds none of it behind the old button."""
    await let_all_learn(town)
    reply = await say(town, town.ada, "What is tea?")
    form = await pressed(town.admin, reply, "edit")
    waits = told(await town.admin.submit_modal(form, {"text": "NEEDLE"}))
    assert waits.content == words.NEEDS_CONSENT
    assert await holding(town, "NEEDLE") == set()
    await use(town, town.admin, "privacy opt-out")
    await town.admin.click(waits, label=words.OPT_IN_AND_KEEP)
    assert waits.content == words.DRAFT_GONE
    assert await holding(town, "NEEDLE") == set()
    assert (await town.bot.access.person(town.admin.id)).consent == "refused"
