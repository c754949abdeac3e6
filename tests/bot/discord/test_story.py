"""Whole stories of people on a simulated Discord: what each of them sees, and what is stored.

Everything is done as people do it: by messages, buttons, reactions and commands.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import discord
import pytest_asyncio
import simcord
from simcord.builders import ChannelHandle
from simcord.results import InteractionResult, ResponseMessage

from bot.discord.wording import privacy as privacy_words
from bot.discord.wording import settings as settings_words
from bot.discord.wording import votes as words
from bot.world import World, open_world
from core.jobs import PairExample
from core.settings import Settings
from tests.bot.discord.conftest import Town, make_bot
from trainer.dataset import select_examples


@pytest_asyncio.fixture
async def process() -> AsyncIterator[AsyncExitStack]:
    """What one process of the operator's holds; a story may end it and begin another."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest_asyncio.fixture
async def world(process: AsyncExitStack, settings: Settings) -> World:
    """An open world, held by the process."""
    return await process.enter_async_context(open_world(settings, lambda _: None))


async def begin_another(process: AsyncExitStack, town: Town, settings: Settings) -> None:
    """Close the world and open it anew on the same data, with a new bot."""
    await process.aclose()
    town.world = await process.enter_async_context(open_world(settings, lambda _: None))
    await town.env.restart_bot(make_bot(town.world))


def told(result: InteractionResult) -> ResponseMessage:
    """Return the answer to an interaction; nobody else sees it."""
    found = [*result.followups, *([result.response] if result.response else [])]
    assert found
    assert all(one.ephemeral for one in found)
    return found[0]


def seen(channel: ChannelHandle, person: simcord.MemberActor) -> list[str]:
    """Return what a person reads in a channel that everybody can read there."""
    return [one.content for one in channel.history(viewer=person) if not one.flags.ephemeral]


def whispered(channel: ChannelHandle, person: simcord.MemberActor) -> list[str]:
    """Return what a person alone reads in a channel."""
    return [one.content for one in channel.history(viewer=person) if one.flags.ephemeral]


def newest(channel: ChannelHandle, person: simcord.MemberActor) -> discord.Message:
    """Return the newest message in a channel that everybody can read."""
    return [one for one in channel.history(viewer=person) if not one.flags.ephemeral][-1]


def buttons(message: discord.Message) -> list[str]:
    """Return what the buttons under a message do that can be pressed."""
    items = [item for row in message.components for item in row.children]  # type: ignore[union-attr]
    return [str(item.custom_id).split(":")[1] for item in items if not item.disabled]


async def press(person: simcord.MemberActor, message: discord.Message, what: str) -> str:
    """Press a button under a reply; return what the person was told, "" if nothing."""
    result = await pressed(person, message, what)
    assert result.acknowledged
    return told(result).content if result.response and result.response.ephemeral else ""


async def pressed(
    person: simcord.MemberActor, message: discord.Message, what: str
) -> InteractionResult:
    """Press a button under a reply; return all that came of it."""
    items = [item for row in message.components for item in row.children]  # type: ignore[union-attr]
    (wanted,) = [str(one.custom_id) for one in items if f":{what}:" in str(one.custom_id)]
    return await person.click(message, custom_id=wanted)


async def use(town: Town, person: simcord.MemberActor, command: str, /, **options: object) -> str:
    """Use a command in the square; return what the person alone was told."""
    return told(await person.slash(town.channel, command, **options)).content


async def let_all_learn(town: Town) -> None:
    """The admin switches training on, and Ada and Bob opt in, all by command."""
    said = await use(town, town.admin, "settings training", state="on")
    assert said == settings_words.TRAINING_ON
    for person in (town.ada, town.bob):
        assert await use(town, person, "privacy opt-in") == privacy_words.OPTED_IN


async def say(town: Town, person: simcord.MemberActor, text: str) -> discord.Message:
    """Speak to the bot in the square; return its reply, which everybody sees."""
    await person.send(town.channel, f"{town.mention} {text}")
    reply = newest(town.channel, person)
    assert reply.author.id == town.bot.user.id  # type: ignore[union-attr]
    assert seen(town.channel, town.ada) == seen(town.channel, town.bob)
    return reply


async def votes(town: Town) -> set[tuple[object, object]]:
    """Return who said what of replies."""
    rows = await town.rows(
        "SELECT p.platform_id, f.kind FROM feedback f JOIN people p ON p.id = f.person_id"
    )
    return {(row["platform_id"], row["kind"]) for row in rows}


async def pairs(town: Town) -> set[tuple[str, str]]:
    """Return what training would take for better and worse."""
    rows = await town.world.database.run(lambda db: db.feedback.rows(town.scope))
    examples = select_examples(rows, person_share=1.0).examples
    return {(one.chosen, one.rejected) for one in examples if isinstance(one, PairExample)}


def all_bytes(town: Town) -> bytes:
    """Return the database file with its log."""
    path = town.world.database.path
    log = Path(f"{path}-wal")
    return path.read_bytes() + (log.read_bytes() if log.exists() else b"")


def remembered(town: Town) -> str:
    """Return all that is held in memory of replies."""
    return str(list(town.world.chat.memory._held.values()))


async def thread_on(town: Town, reply: discord.Message) -> ChannelHandle:
    """Let a thread grow from a reply."""
    channel = town.bot.get_channel(town.channel.id)
    assert isinstance(channel, discord.TextChannel)
    await (await channel.fetch_message(reply.id)).create_thread(name="talk")
    await town.env.settle()
    (thread,) = town.channel.threads
    return thread


async def test_two_people_vote_in_a_thread_and_change_their_minds(town: Town) -> None:
    """By button and by reaction, there and back again; each sees their own answers alone."""
    await let_all_learn(town)
    thread = await thread_on(town, await say(town, town.ada, "Hello"))
    await town.ada.send(thread, "I like tea")
    await town.bob.send(thread, "I like coffee")
    assert seen(thread, town.ada) == seen(thread, town.bob)
    assert seen(thread, town.ada)[-4::2] == ["I like tea", "I like coffee"]
    (row,) = await town.rows("SELECT prompt FROM replies ORDER BY at DESC LIMIT 1")
    asked = [content for role, content in json.loads(str(row["prompt"])) if role == "user"]
    assert asked == ["ada: I like tea", "bob: I like coffee"]
    reply = newest(thread, town.bob)
    assert buttons(reply) == ["up", "down", "again", "edit"]

    ada, bob = str(town.ada.id), str(town.bob.id)
    assert await press(town.bob, reply, "up") == words.UP
    await town.ada.react(reply, "👎")
    assert await votes(town) == {(bob, "up"), (ada, "down")}
    assert await press(town.bob, reply, "down") == words.DOWN_CHANGED
    assert await press(town.ada, reply, "up") == words.UP_CHANGED
    assert await votes(town) == {(bob, "down"), (ada, "up")}
    (_, asked_why) = [one for one in thread.history(viewer=town.bob) if one.flags.ephemeral]
    await town.bob.click(asked_why, label=words.REASON_LABELS["rude"])
    assert whispered(thread, town.bob) == [words.UP, words.reasons_kept(["rude"])]
    await town.bob.click(asked_why, label=words.TAKE_BACK)
    await town.ada.unreact(reply, "👎")
    assert await votes(town) == {(ada, "up")}
    assert whispered(thread, town.bob) == [words.UP, words.TAKEN_BACK]
    assert whispered(thread, town.ada) == [words.UP_CHANGED]
    assert seen(thread, town.admin) == seen(thread, town.bob)
    assert whispered(thread, town.admin) == []


async def test_corrections_and_versions_make_pairs_over_restarts(
    town: Town, process: AsyncExitStack, settings: Settings
) -> None:
    """✏️, 🔁, ◀ ▶ and votes on versions go on where they were, whatever was closed between."""
    await let_all_learn(town)
    first = await say(town, town.ada, "What is tea?")
    (old,) = await town.rows("SELECT id, text FROM replies")
    form = await pressed(town.ada, first, "edit")
    await town.env.restart_bot(make_bot(town.world))
    fixed = await town.ada.submit_modal(form, {"text": "A drink."})
    assert told(fixed).content == words.CORRECTED
    assert await pairs(town) == {("A drink.", old["text"])}

    await begin_another(process, town, settings)
    assert await press(town.bob, newest(town.channel, town.bob), "again") == ""
    again = newest(town.channel, town.bob)
    assert again.id == first.id
    assert buttons(again) == ["up", "down", "again", "edit", "older"]
    (new,) = await town.rows("SELECT id, text, kept FROM replies WHERE replaces = ?", old["id"])
    voted = await pressed(town.bob, again, "up")
    assert told(voted).content == words.UP
    made = {("A drink.", old["text"]), (new["text"], old["text"])}
    assert await pairs(town) == made

    await begin_another(process, town, settings)
    await town.bob.click(told(voted), label=words.TAKE_BACK)
    assert told(voted).content == words.TAKEN_BACK
    assert await pairs(town) == {("A drink.", old["text"])}
    assert await press(town.ada, newest(town.channel, town.ada), "older") == ""
    shown = newest(town.channel, town.bob)
    assert shown.content == first.content
    assert await press(town.bob, shown, "down") == words.DOWN
    assert await pairs(town) == made
    assert await press(town.ada, shown, "newer") == ""
    assert seen(town.channel, town.bob)[-1] == again.content
    assert await votes(town) == {
        (str(town.ada.id), "correction"),
        (str(town.bob.id), "regenerate"),
        (str(town.bob.id), "down"),
        (str(town.bob.id), "preference"),
    }


async def test_a_version_asked_for_after_a_restart_goes_with_its_people(
    town: Town, process: AsyncExitStack, settings: Settings
) -> None:
    """Whoever asked for it: the words are the one's who wrote them, in the memory too."""
    await let_all_learn(town)
    await say(town, town.ada, "NEEDLE")
    await begin_another(process, town, settings)
    await press(town.bob, newest(town.channel, town.bob), "again")
    assert len(await town.rows("SELECT 1 FROM replies WHERE kept")) == 2
    await use(town, town.ada, "privacy opt-out")
    assert "NEEDLE" not in remembered(town)
    await press(town.bob, newest(town.channel, town.bob), "again")
    assert await town.rows("SELECT 1 FROM replies WHERE kept") == []
    assert b"NEEDLE" not in all_bytes(town)


async def test_no_version_is_stored_once_the_server_switched_training_off(town: Town) -> None:
    """🔁 on a reply from before shows another one, and keeps none of it."""
    await let_all_learn(town)
    reply = await say(town, town.ada, "NEEDLE")
    await use(town, town.admin, "settings training", state="off")
    await press(town.bob, reply, "again")
    assert [row["kept"] for row in await town.rows("SELECT kept FROM replies ORDER BY at")] == [
        1,
        0,
    ]
    assert newest(town.channel, town.bob).content != reply.content
