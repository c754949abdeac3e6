"""The real client over real sockets: dropped, refused and slowed down, and nothing lost or doubled.

The engine is scripted: its text is known to the letter, and it writes as fast or slowly as a test
wants. Discord is the double.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import cycle, islice, pairwise
from pathlib import Path

import pytest_asyncio
from pydantic import SecretStr

from bot.discord.bot import ThumbtuneBot
from bot.discord.serve import discord_face
from bot.discord.wording import chat as words
from bot.world import World
from core.errors import EngineStopped
from core.sections import DiscordSettings
from core.settings import Settings
from tests.bot.discord.scripted import WORDS, ScriptedEngine, scripted_world
from tests.discord_double import TOKEN, Double
from tests.discord_double.drafts import leaves
from tests.discord_double.records import Channel, Message, User

POST, EDIT = "/channels/{channel}/messages", "/channels/{channel}/messages/{message}"


@dataclass
class Place:
    """A bot connected to a double, one channel, one person."""

    double: Double
    bot: ThumbtuneBot
    world: World
    engine: ScriptedEngine
    channel: Channel
    ada: User

    async def ask(self, text: str = "Tell me") -> Message:
        """Let Ada ask the bot."""
        return await self.double.say(self.ada, self.channel, text, mention_bot=True)

    def answers(self) -> list[Message]:
        """Return the bot's messages in the channel."""
        found = self.double.messages(self.channel)
        return [message for message in found if message.author is self.double.world.bot]

    async def rows(self, statement: str) -> list[dict[str, object]]:
        """Read rows straight from the database."""
        return await self.world.database.run(lambda db: db._connection.all(statement))


def settings_for(double: Double, data_dir: Path) -> Settings:
    """Settings that lead to the double."""
    return Settings(
        data_dir=data_dir,
        discord=DiscordSettings(api_url=double.api_url, gateway_url=double.gateway_url),
        discord_token=SecretStr(TOKEN),
    )


@asynccontextmanager
async def connected(
    double: Double, data_dir: Path, engine: ScriptedEngine, channel: Channel, ada: User
) -> AsyncIterator[Place]:
    """Run a bot against the double."""
    settings = settings_for(double, data_dir)
    async with (
        scripted_world(settings, engine) as world,
        discord_face(world, lambda _: None) as bot,
    ):
        assert bot is not None
        yield Place(double, bot, world, engine, channel, ada)


@pytest_asyncio.fixture
async def double() -> AsyncIterator[Double]:
    """A Discord on loopback."""
    async with Double() as running:
        yield running


@pytest_asyncio.fixture
async def place(double: Double, tmp_path: Path) -> AsyncIterator[Place]:
    """A bot in a channel with Ada."""
    ada = await double.user("ada")
    channel = await double.text_channel(await double.guild("Town", members=[ada]), "square")
    engine = ScriptedEngine(words=40, pace_s=0.02)
    async with connected(double, tmp_path, engine, channel, ada) as here:
        yield here


async def test_a_drop_in_mid_reply_loses_and_doubles_nothing(place: Place) -> None:
    """The socket is cut while the bot writes; it resumes, and the one reply is whole."""
    await place.ask()
    await until(lambda: bool(place.answers()))
    place.double.drop()
    other = await place.double.say(place.ada, place.channel, "And me?", mention_bot=True)
    await until(lambda: whole(place.answers()) == 2, 30)
    assert len(place.double.gateway.resumes) == 1
    first, second = place.answers()
    assert first.content == second.content == text_of(40)
    assert second.reply_to is other
    assert len(await place.rows("SELECT * FROM replies WHERE state = 'done'")) == 2


async def test_a_vote_pressed_while_the_socket_is_down_is_stored_once(place: Place) -> None:
    """Votes by button and by reaction in the gap arrive with the resumption, once each."""
    await place.ask()
    await until(lambda: whole(place.answers()) == 1)
    (answer,) = place.answers()
    place.double.drop()
    await place.double.react(place.ada, answer, "👍")
    pressed = await place.double.press(place.ada, answer, button(answer, "down"))
    await asyncio.wait_for(pressed.until_acknowledged(), 30)
    await pressed
    rows = await place.rows("SELECT kind FROM feedback")
    assert rows == [{"kind": "down"}]
    assert pressed.response.ephemeral


async def test_a_session_that_cannot_be_resumed_finds_the_reactions_it_missed(
    place: Place,
) -> None:
    """After a new session, reactions given meanwhile count, and those taken back do not."""
    await place.ask()
    await until(lambda: whole(place.answers()) == 1)
    (answer,) = place.answers()
    await place.double.react(place.ada, answer, "👎")
    await until_rows(place, "SELECT kind FROM feedback", [{"kind": "down"}])
    place.double.gateway.invalidate()
    await place.double.unreact(place.ada, answer, "👎")
    await place.double.react(place.ada, answer, "👍")
    await until_rows(place, "SELECT kind FROM feedback", [{"kind": "up"}])


async def test_429s_slow_the_edits_and_lose_no_text(place: Place) -> None:
    """One edit in two seconds is all Discord allows: fewer edits, the whole text, no word lost."""
    place.double.limit("PATCH", EDIT, limit=1, per_s=2.0, hidden=True)
    await place.ask()
    await until(lambda: whole(place.answers()) == 1, 30)
    (answer,) = place.answers()
    assert answer.content == text_of(40)
    assert len(place.double.history_of(answer)) <= 4


async def test_edits_are_spread_over_the_time_discord_gives(place: Place) -> None:
    """With five edits in five seconds, they come evenly and no 429 is earned."""
    place.double.limit("PATCH", EDIT, limit=5, per_s=5.0)
    place.engine.words = 200
    await place.ask()
    await until(lambda: whole(place.answers()) == 1, 30)
    (answer,) = place.answers()
    assert answer.content == text_of(200)
    assert place.double.invalid == 0
    times = [revision.at for revision in place.double.history_of(answer)]
    gaps = [after - before for before, after in pairwise(times)]
    assert max(gaps) < 2.5


async def test_failing_edits_are_made_good_by_the_last(place: Place) -> None:
    """Discord fails eight times in a row while a reply is written; in the end it is all there."""
    await place.ask()
    await until(lambda: bool(place.answers()))
    place.double.fail_next("PATCH", EDIT, status=502, times=8)
    await until(lambda: whole(place.answers()) == 1, 60)
    assert place.answers()[0].content == text_of(40)


async def test_a_lost_answer_to_a_sent_message_doubles_nothing(place: Place) -> None:
    """The message was sent but the connection died before Discord could say so: still one reply."""
    place.double.lose_next_answer("POST", POST)
    await place.ask()
    await until(lambda: whole(place.answers()) >= 1, 30)
    await asyncio.sleep(0.5)
    assert len(place.answers()) == 1


async def test_an_engine_that_dies_apologises_and_try_again_answers(place: Place) -> None:
    """What was written stays with an apology; the button answers the same question in place."""
    await place.ask()
    await until(lambda: bool(place.answers()))
    place.engine.streams[-1].broken = True
    await until(lambda: words.BROKE_OFF in place.answers()[0].content)
    (answer,) = place.answers()
    await (
        await place.double.press(place.ada, answer, button(answer, "retry"))
    ).until_acknowledged()
    await until(lambda: whole(place.answers()) == 1, 30)
    assert place.answers()[0].content == text_of(40)
    states = await place.rows("SELECT state FROM replies ORDER BY at")
    assert [row["state"] for row in states] == ["failed", "done"]


async def test_an_engine_that_refuses_is_an_apology_with_a_button(place: Place) -> None:
    """Before the first word: one message that says it failed, and that nothing is lost."""
    place.engine.refusing = EngineStopped("the engine is closed")
    await place.ask()
    await until(lambda: bool(place.answers()))
    (answer,) = place.answers()
    assert answer.content == words.ENGINE_FAILED
    place.engine.refusing = None
    await (
        await place.double.press(place.ada, answer, button(answer, "retry"))
    ).until_acknowledged()
    await until(lambda: whole(place.answers()) == 1, 30)


async def test_who_waits_sees_the_line_move(place: Place) -> None:
    """While others are served first, the message says how many, and then becomes the reply."""
    place.engine.line = 3
    place.engine.turn.clear()
    await place.ask()
    await until(lambda: [one.content for one in place.answers()] == [words.queued(3)])
    place.engine.streams[-1].line = 1
    await until(lambda: [one.content for one in place.answers()] == [words.queued(1)])
    place.engine.turn.set()
    await until(lambda: whole(place.answers()) == 1)
    assert [one.content for one in place.answers()] == [text_of(40)]


async def test_stop_ends_a_reply_with_what_it_has(place: Place) -> None:
    """⏹ keeps the words so far, says that it was stopped, and offers the votes."""
    place.engine.words, place.engine.pace_s = 500, 0.05
    await place.ask()
    await until(lambda: bool(place.answers()))
    (answer,) = place.answers()
    await (await place.double.press(place.ada, answer, button(answer, "stop"))).until_acknowledged()
    await until(lambda: whole(place.answers()) == 1, 30)
    assert place.answers()[0].content.endswith(words.STOPPED)


async def test_a_long_reply_goes_over_several_messages(place: Place) -> None:
    """More than 2000 characters are split; the votes stand under the last page."""
    place.engine.words, place.engine.pace_s = 700, 0.001
    await place.ask()
    await until(lambda: whole(place.answers()) == 1, 30)
    answers = place.answers()
    assert len(answers) == 2
    assert " ".join(answer.content for answer in answers) == text_of(700)
    assert not list(leaves(answers[0].components))
    shown = await place.rows("SELECT message_id FROM reply_messages ORDER BY position")
    assert [row["message_id"] for row in shown] == [str(answer.id) for answer in answers]


async def test_a_killed_bot_mends_its_half_reply(double: Double, tmp_path: Path) -> None:
    """After `kill -9` in mid-reply the next start says so under it, and another try is whole."""
    ada = await double.user("ada")
    channel = await double.text_channel(await double.guild("Town", members=[ada]), "square")
    child = await start_child(double, tmp_path, words=10_000)
    await double.say(ada, channel, "Tell me", mention_bot=True)
    await until(lambda: len(double.messages(channel)) == 2)
    await until(lambda: len(double.history_of(double.messages(channel)[1])) > 2)
    child.kill()
    await child.wait()
    engine = ScriptedEngine(words=40, pace_s=0.01)
    async with connected(double, tmp_path, engine, channel, ada) as place:
        await until(lambda: words.RESTARTED in place.answers()[0].content, 30)
        (answer,) = place.answers()
        press = await double.press(ada, answer, button(answer, "retry"))
        await press.until_acknowledged()
        await until(lambda: whole(place.answers()) == 1, 30)
        assert place.answers()[0].content == text_of(40)
        states = await place.rows("SELECT state FROM replies ORDER BY at")
    assert [row["state"] for row in states] == ["failed", "done"]


async def start_child(double: Double, data_dir: Path, *, words: int) -> asyncio.subprocess.Process:
    """Run the bot in a process of its own; return once it is ready."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bot.discord.bot_child",
        str(data_dir),
        double.api_url,
        double.gateway_url,
        str(words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    await child.stdout.readline()
    return child


def text_of(count: int) -> str:
    """Return what the scripted engine writes in so many words."""
    return " ".join(islice(cycle(WORDS), count))


def whole(messages: list[Message]) -> int:
    """Count the messages that carry the votes: the replies that are whole."""
    return sum(
        any(str(leaf.get("custom_id", "")).startswith("tt:up:") for leaf in leaves(one.components))
        for one in messages
    )


def button(message: Message, what: str) -> str:
    """Return the custom id of a button."""
    ids = [str(leaf.get("custom_id", "")) for leaf in leaves(message.components)]
    return next(one for one in ids if one.startswith(f"tt:{what}:"))


async def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something holds; fail after some time."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.02)


async def until_rows(place: Place, statement: str, expected: list[dict[str, object]]) -> None:
    """Wait until the database holds these rows."""
    async with asyncio.timeout(40):
        while await place.rows(statement) != expected:
            await asyncio.sleep(0.1)
