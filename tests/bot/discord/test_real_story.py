"""The whole story with the real default model and a real training run, as people on Discord see it.

`thumbtune up` runs in a process of its own, Discord is the double, and everything goes over real
sockets. Four people with a stated taste, the shorter half of the replies, teach the bot of their
server; one of them, Dora, never opts in.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bot.discord.wording import adapters as adapter_words
from bot.discord.wording import common as common_words
from bot.discord.wording import privacy as privacy_words
from bot.discord.wording import settings as settings_words
from bot.discord.wording import training as training_words
from bot.discord.wording import votes as vote_words
from core.generation import BASE
from tests.bot.discord.story_child import Operator, Table
from tests.bot.discord.story_town import (
    Story,
    buttons,
    reply_id,
    spoken,
    text_of,
    told,
    until,
    watched,
)
from tests.discord_double import Double
from tests.discord_double.records import Message

TOKENS = 24
SETTINGS: dict[str, Table] = {
    "serving": {"threads": 1, "max_batch": 4},
    "training": {
        "threads": 1,
        "nice": 0,
        "min_examples": 4,
        "epochs": 1.0,
        "batch_size": 2,
        "max_length": 256,
    },
    "discord": {"training_permission": "given by the author of this test, for this test"},
}
QUESTIONS = {
    "ada": ("What is a lighthouse?", "Why is the sky blue?", "Name a tea.", "Who was Homer?"),
    "bob": ("What is a volcano?", "How do I boil an egg?", "Name a river.", "What is jazz?"),
    "cleo": ("What is a glacier?", "Why do cats purr?", "Name a planet.", "What is a nurse?"),
    "dora": ("What is a xylophone?", "Who plays bagpipes?", "Name a lizard.", "What is Zanzibar?"),
}
MESSAGES = "/channels/{channel}/messages"
TUNE = "What is a violin?"
FIX = "A tower with a bright light that guides ships."


@pytest.mark.real_model
async def test_a_server_teaches_the_default_model(tmp_path: Path) -> None:
    """Chat, votes, a training run that survives `kill -9`, another voice, back again, forgotten."""
    async with Double() as double:
        for method, pattern in (("POST", MESSAGES), ("PATCH", f"{MESSAGES}/{{message}}")):
            double.limit(method, pattern, limit=5, per_s=5.0)
        story = await found(double, tmp_path)
        try:
            await tell(story)
        finally:
            await story.operator.kill()


async def found(double: Double, home: Path) -> Story:
    """Found a server with an admin, the four who teach, and a stranger."""
    names = ("admin", *QUESTIONS, "stranger")
    people = {name: await double.user(name) for name in names}
    town = await double.guild("Town", members=list(people.values()))
    square = await double.text_channel(town, "square")
    return Story(double, Operator(home, double, **SETTINGS), town, square, people)


async def tell(story: Story) -> None:
    """Live through the story."""
    printed = await story.operator.start()
    assert "converting the bundled model, once" in printed
    assert "Discord: connected as thumbtune to 1 server" in printed
    await settle_in(story)
    replies = await talk(story)
    await vote(story, list(replies))
    await correct_and_ask_again(story, replies)
    await refuse_a_stranger(story)
    before = await ask_without_luck(story)
    during = await train(story)
    newest = await hear_the_new_voice(story)
    after = await roll_back(story)
    assert spoken(before) == spoken(during) == spoken(after)
    shown = {**replies, before: "cleo", during: "ada", newest: "cleo", after: "ada"}
    by = check_what_is_kept(story, shown)
    assert by.pop(reply_id(newest)) == f"{story.scope}@v1"
    assert set(by.values()) == {BASE}
    await forget_bob(story)
    await leave(story)
    check_what_is_gone(story, shown)
    interactions = story.double.world.interactions.values()
    assert all(one.acknowledged and not one.refused_after_s for one in interactions)
    assert story.double.invalid == 0


async def settle_in(story: Story) -> None:
    """The admin switches training on and asks for short replies; three of four opt in."""
    assert told(await story.use("admin", "settings training", state="on")) == (
        settings_words.TRAINING_ON
    )
    style = told(await story.use("admin", "settings style", length=TOKENS))
    assert style.endswith(f"**{TOKENS}**")
    for name in ("ada", "bob", "cleo"):
        assert told(await story.use(name, "privacy opt-in")) == privacy_words.OPTED_IN


async def talk(story: Story) -> dict[Message, str]:
    """All four ask at the same time, four times; return who asked for which reply."""
    replies: dict[Message, str] = {}
    for questions in zip(*QUESTIONS.values(), strict=True):
        asking = [story.ask(*one) for one in zip(QUESTIONS, questions, strict=True)]
        replies |= dict(zip(await asyncio.gather(*asking), QUESTIONS, strict=True))
    for reply in replies:
        lengths = [len(one.content) for one in story.double.history_of(reply)]
        assert lengths == sorted(lengths)
    assert max(len(story.double.history_of(reply)) for reply in replies) > 2
    return replies


async def vote(story: Story, replies: list[Message]) -> None:
    """Of each reply two others say what they think, one by button and one by reaction."""
    liked = sorted(replies, key=lambda reply: len(spoken(reply).split()))[: len(replies) // 2]
    names = list(QUESTIONS)
    for place, reply in enumerate(replies):
        kind, emoji, thanks = "up", "👍", vote_words.UP
        if reply not in liked:
            kind, emoji, thanks = "down", "👎", vote_words.DOWN
        presses, reacts = (names[(place + step) % 4] for step in (1, 2))
        answer = told(await story.press(presses, reply, kind))
        hint = f"\n{vote_words.CONSENT_HINT}" if presses == "dora" else ""
        assert answer == thanks + hint
        await story.double.react(story.people[reacts], reply, emoji)
        for name in (presses, reacts):
            story.note(name, reply, kind)
    first = replies[0]
    again = told(await story.press("bob", first, "up" if first in liked else "down"))
    assert again == (vote_words.UP_AGAIN if first in liked else vote_words.DOWN_AGAIN)


async def correct_and_ask_again(story: Story, replies: dict[Message, str]) -> None:
    """Cleo corrects what was said of lighthouses; Bob wants another word on volcanoes."""
    light, fire = list(replies)[:2]
    form = await story.press("cleo", light, "edit")
    sent = await story.double.submit_modal(story.people["cleo"], form, {"text": FIX})
    assert told(await sent) == vote_words.CORRECTED
    story.note("cleo", light, "correction")
    story.note("bob", fire, "regenerate")
    await story.press("bob", fire, "again")
    await until(lambda: "older" in buttons(fire), 60)


async def refuse_a_stranger(story: Story) -> None:
    """Discord offers a stranger no /retrain; where a server loosens that, the bot says no."""
    with pytest.raises(ValueError, match="is not offered 'retrain'"):
        await story.use("stranger", "retrain")
    (command,) = (one for one in story.double.world.commands[None] if one["name"] == "retrain")
    held, command["default_member_permissions"] = command["default_member_permissions"], None
    assert told(await story.use("stranger", "retrain")) == common_words.NOT_ALLOWED
    command["default_member_permissions"] = held
    assert story.operator.rows("SELECT id FROM runs") == []


async def ask_without_luck(story: Story) -> Message:
    """From here on one voice gives one answer to one question; return the base model's."""
    await story.use("admin", "settings style", temperature=0)
    return await story.ask("cleo", TUNE)


async def train(story: Story) -> Message:
    """A run is planned, begun, killed in the middle and goes on; return a reply written then."""
    plan = await story.use("admin", "retrain", dry_run=True)
    assert training_words.PLAN_TITLE in told(plan)
    begun = await story.use("admin", "retrain", recipe="apo")
    panel = begun.original
    assert panel is not None and not panel.ephemeral
    bars: list[str] = []
    await until(lambda: watched(panel, bars) != "" and "image" in panel.embeds[0], 120)
    await story.operator.kill()
    (run,) = story.operator.rows("SELECT id, state FROM runs")
    assert run["state"] == "training"
    assert f"{run['id']} was cut off while training" in await story.operator.start()
    during = await story.ask("ada", TUNE)
    assert text_of(panel.embeds).startswith(f"{training_words.TITLE}\n")
    accepted = f"{training_words.TITLE}: {training_words.OUTCOMES['promoted'].lower()}"
    await until(lambda: watched(panel, bars).startswith(accepted), 180)
    assert training_words.speaks(f"{story.scope}@v1") in text_of(panel.embeds)
    assert buttons(panel) == {}
    assert len(set(bars)) > 3
    assert story.operator.rows("SELECT id, state FROM runs") == [{**run, "state": "promoted"}]
    return during


async def hear_the_new_voice(story: Story) -> Message:
    """The next reply is by what was learnt, and says so where an admin looks."""
    newest = await story.ask("cleo", TUNE)
    listed = told(await story.use("admin", "adapter list"))
    assert adapter_words.who_speaks(f"{story.scope}@v1", BASE) in listed
    assert told(await story.press("ada", newest, "up")) == vote_words.UP
    story.note("ada", newest, "up")
    return newest


async def roll_back(story: Story) -> Message:
    """The admin takes the base model back, everybody is told; return the next reply."""
    used = await story.use("admin", "adapter rollback")
    assert told(used) == adapter_words.done(BASE)
    (public,) = await used.until_followups(1)
    mention = f"<@{story.people['admin'].id}>"
    assert public.content == adapter_words.rolled_back(mention, BASE, f"{story.scope}@v1")
    assert not public.ephemeral
    return await story.ask("ada", TUNE)


def check_what_is_kept(story: Story, shown: dict[Message, str]) -> dict[str, str]:
    """Compare the database with what people saw; return which adapter wrote which reply."""
    feedback = story.operator.rows(
        "SELECT reply_id, platform_id, kind FROM feedback f JOIN people p ON p.id = f.person_id"
    )
    kept = [(str(r["reply_id"]), str(r["platform_id"]), str(r["kind"])) for r in feedback]
    assert sorted(kept) == sorted(story.said)
    rows = story.operator.rows("SELECT id, state, text, kept, adapter FROM replies")
    assert {row["state"] for row in rows} == {"done"}
    assert len(rows) == len(shown) + 1  # the one that was asked for again has two versions
    texts = {row["id"]: " ".join(str(row["text"]).split()) for row in rows}
    for reply, name in shown.items():
        assert texts[reply_id(reply)] == ("" if name == "dora" else spoken(reply))
    return {str(row["id"]): str(row["adapter"]) for row in rows}


async def forget_bob(story: Story) -> None:
    """Bob is asked once more whether he means it, and told what went and who learnt from him."""
    asked = await story.use("bob", "privacy forget")
    assert told(asked) == privacy_words.CONFIRM_FORGET
    assert asked.original is not None
    pressed = await story.double.press(story.people["bob"], asked.original, "tt:privacy:forget-now")
    (done,) = await pressed.until_followups(1, timeout_s=30)
    assert done.ephemeral
    assert done.content.startswith("Done: you are forgotten. Removed: ")
    assert f"{story.scope}@v1" in done.content


async def leave(story: Story) -> None:
    """A reply that is being written when the bot is told to stop is written to its end."""
    asked = await story.double.say(
        story.people["ada"], story.square, "Tell me about bread.", mention_bot=True
    )
    await until(lambda: bool(story.answers(asked)), 30)
    assert await story.operator.stop(within_s=30) == 0
    (last,) = story.answers(asked)
    assert "up" in buttons(last)
    printed = story.operator.printed()
    (promoted,) = (line for line in printed.splitlines() if ": promoted: Accepted: " in line)
    assert promoted.endswith(".")  # a line of the log is not broken in the middle
    assert "stopping" in printed.splitlines()
    assert "Traceback" not in printed


def check_what_is_gone(story: Story, shown: dict[Message, str]) -> None:
    """No file holds a word of Dora, who never opted in, or of Bob, who was forgotten."""
    stored = story.operator.stored_bytes()
    assert QUESTIONS["ada"][0].encode() in stored
    for name in ("bob", "dora"):
        for text in QUESTIONS[name]:
            assert text.encode() not in stored, text
    assert str(story.people["bob"].id).encode() not in stored
    for reply, name in shown.items():
        for revision in story.double.history_of(reply) if name in ("bob", "dora") else ():
            line = max(revision.content.splitlines(), key=len)
            assert len(line) < 40 or line.encode() not in stored, line
