"""A small machine runs the bot and another process writes its replies, as people on Discord see it.

`thumbtune up` and `thumbtune serve` are two processes with data directories of their own; Discord
is the double, and everything goes over real sockets.
"""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from bot.discord.wording import chat as chat_words
from bot.discord.wording import votes as vote_words
from core.generation import BASE
from tests.bot.api.test_serve import serving
from tests.bot.discord.story_child import Operator, Table
from tests.bot.discord.story_town import Story, buttons, reply_id, spoken, told, until
from tests.bot.test_cli import Shell
from tests.discord_double import Double
from tests.discord_double.records import Message

MOST_RESIDENT_MIB = 150
START_S = 2.0
"""Of a processor: how long that takes depends on what else the machine does."""


@pytest.fixture
def port() -> int:
    """A port that is free now, and stays the far side's over a restart."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        number: int = taken.getsockname()[1]
    return number


async def found(home: Path, double: Double, model: Path, port: int) -> Story:
    """Found a server whose bot lets another process write."""
    people = {name: await double.user(name) for name in ("admin", "ada", "bob")}
    town = await double.guild("Town", members=list(people.values()))
    square = await double.text_channel(town, "square")
    here: dict[str, Table] = {
        "model": {"source": str(model), "dtype": "float32", "device": "cpu"},
        "serving": {"backend": "remote", "remote_url": f"http://127.0.0.1:{port}/v1"},
        "console": {"port": 0},
    }
    return Story(double, Operator(home, double, **here), town, square, people)


async def test_the_bot_needs_neither_torch_nor_much_memory(
    tmp_path: Path, tiny_model: Path, port: int
) -> None:
    """It starts at once, answers, takes votes, outlives `kill -9` of the far side in the middle of
    a talk, and goes on with the one that is started there next.
    """
    far = Shell(tmp_path, tiny_model)
    (tmp_path / "near").mkdir()
    async with Double() as double:
        story = await found(tmp_path / "near", double, tiny_model, port)
        try:
            with serving(far, "--port", str(port)) as engine:
                await story.operator.start()  # the first start makes the database
                await story.operator.kill()
                await story.operator.start()
                start = story.operator.footprint()
                first = await ask_and_vote(story)
                footprint = story.operator.footprint()
                engine.process.kill()
                engine.process.wait()
                await hear_that_it_failed(story)
            with serving(far, "--port", str(port)):
                second = await story.ask("bob", "And now?")
            assert {reply_id(first), reply_id(second)} <= set(told_of(story))
            assert set(told_of(story).values()) == {BASE}
            assert await story.operator.stop(within_s=20) == 0
        finally:
            await story.operator.kill()
    assert not footprint.holds("libtorch")
    assert footprint.resident_mib < MOST_RESIDENT_MIB
    assert start.processor_s < START_S


async def ask_and_vote(story: Story) -> Message:
    """Ada asks; Bob votes by the button."""
    reply = await story.ask("ada", "Hello there")
    assert spoken(reply)
    assert told(await story.press("bob", reply, "up")).startswith(vote_words.UP)
    kinds = story.operator.rows("SELECT kind FROM feedback")
    assert [row["kind"] for row in kinds] == ["up"]
    return reply


async def hear_that_it_failed(story: Story) -> None:
    """Ada asks while nobody writes: she is told, and offered another try."""
    asked = await story.double.say(
        story.people["ada"], story.square, "Are you there?", mention_bot=True
    )
    await until(lambda: any("retry" in buttons(one) for one in story.answers(asked)), 60)
    assert chat_words.ENGINE_FAILED in story.answers(asked)[-1].content


def told_of(story: Story) -> dict[str, str]:
    """Return which adapter wrote each reply that came to its end."""
    rows = story.operator.rows("SELECT id, adapter FROM replies WHERE state = 'done'")
    return {str(row["id"]): str(row["adapter"]) for row in rows}
