"""What people see and get by /privacy, on a server and in direct messages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import simcord
from simcord.results import InteractionResult, ResponseMessage

from bot.discord.places import Spot
from bot.discord.wording import privacy as words
from core.settings import Settings
from tests.bot.discord.conftest import Town, discord_settings


async def ask(town: Town, command: str) -> ResponseMessage:
    """Let Ada use a /privacy command in the square; return what she alone sees."""
    return told(await town.ada.slash(town.channel, f"privacy {command}"))


def told(result: InteractionResult) -> ResponseMessage:
    """Return the one answer to an interaction; nobody else sees it."""
    found = [one for one in (result.response, *result.followups) if one and one.content]
    assert found
    assert all(one.ephemeral for one in found)
    return found[-1]


async def train(town: Town, *people: simcord.MemberActor) -> None:
    """Switch training on for the town and opt these people in."""
    spot = Spot(town.guild.id, town.channel.id)
    await town.bot.places.change_server(spot, "test", training=True)
    await town.opt_in(*people)


async def say(town: Town, text: str) -> None:
    """Let Ada speak to the bot."""
    await town.ada.send(town.channel, f"{town.mention} {text}")


async def consent_of(town: Town, person: simcord.MemberActor) -> str:
    """Return what a person decided."""
    return (await town.bot.access.person(person.id)).consent


async def test_show_before_any_decision_is_plain_about_what_is_stored(town: Town) -> None:
    """No words are stored; ids and votes are, and the training here is off."""
    await say(town, "NEEDLE")
    shown = await ask(town, "show")
    assert words.consent_line("unknown") in shown.content
    assert words.here("on this server", training=False, permitted=True) in shown.content
    assert words.stored(0, 0, 0) in shown.content
    assert b"NEEDLE" not in town.world.database.path.read_bytes()
    labels = [one["label"] for row in shown.components for one in row["components"]]
    assert labels == [words.OPT_IN, words.EXPORT, words.FORGET]


async def test_show_after_opting_in_counts_what_is_stored(town: Town) -> None:
    """With permission, switch and consent the reply is stored and counted."""
    await train(town, town.ada)
    await say(town, "NEEDLE")
    shown = await ask(town, "show")
    assert words.consent_line("given") in shown.content
    assert words.here("on this server", training=True, permitted=True) in shown.content
    assert words.stored(1, 0, 0) in shown.content
    assert words.retention(365) in shown.content


async def test_opting_in_is_the_persons_own_act(town: Town) -> None:
    """Chatting and voting are no consent; the button or the command is."""
    await say(town, "hello")
    assert await consent_of(town, town.ada) == "unknown"
    shown = await ask(town, "show")
    pressed = await town.ada.click(shown, label=words.OPT_IN)
    assert told(pressed).content == words.OPTED_IN
    assert await consent_of(town, town.ada) == "given"
    assert await consent_of(town, town.bob) == "unknown"


async def test_opting_out_removes_the_words_at_once(town: Town) -> None:
    """Question, answer and their copies in memory go; the row and its votes stay."""
    await train(town, town.ada)
    await say(town, "NEEDLE")
    assert b"NEEDLE" in _all_bytes(town)
    answer = await ask(town, "opt-out")
    assert answer.content == words.opted_out({"redacted": 1}, ())
    assert b"NEEDLE" not in _all_bytes(town)
    assert len(town.world.chat.memory) == 0
    rows = await town.rows("SELECT kept, text, prompt FROM replies")
    assert rows == [{"kept": 0, "text": "", "prompt": "[]"}]
    assert await consent_of(town, town.ada) == "refused"
    assert words.consent_line("refused") in (await ask(town, "show")).content


def _all_bytes(town: Town) -> bytes:
    """Return the database file with its log."""
    path = town.world.database.path
    log = Path(f"{path}-wal")
    return path.read_bytes() + (log.read_bytes() if log.exists() else b"")


async def test_the_copy_comes_by_direct_message(town: Town) -> None:
    """The file holds what is stored about the person, as readable JSON."""
    await train(town, town.ada)
    await say(town, "NEEDLE")
    assert (await ask(town, "export")).content == words.COPY_SENT
    sent = town.ada.user.dm_channel.last_message
    assert sent.content == words.COPY
    held = json.loads(await sent.attachments[0].read())
    assert "NEEDLE" in json.dumps(held["replies"])


async def test_with_closed_direct_messages_the_copy_is_in_the_answer(town: Town) -> None:
    """Only the person sees it, and is told why it is there."""
    town.env.inject_error("POST", "/channels/*/messages", status=403, code=50007)
    answer = await ask(town, "export")
    assert answer.content == words.COPY_HERE
    assert answer.attachments[0].filename == "thumbtune-my-data.json"


async def test_forgetting_asks_first_and_can_be_called_off(town: Town) -> None:
    """Calling it off changes nothing and takes the buttons away."""
    await train(town, town.ada)
    await say(town, "NEEDLE")
    asked = await ask(town, "forget")
    assert asked.content == words.CONFIRM_FORGET
    await town.ada.click(asked, label=words.KEEP)
    assert len(await town.rows("SELECT 1 FROM replies WHERE kept")) == 1


async def test_forgetting_removes_everything_of_a_person(town: Town) -> None:
    """Rows, memory and consent go; whoever comes back is somebody new."""
    await train(town, town.ada)
    await say(town, "NEEDLE")
    before = (await town.bot.access.person(town.ada.id)).id
    pressed = await town.ada.click(await ask(town, "forget"), label=words.FORGET_NOW)
    assert told(pressed).content.startswith("Done: you are forgotten. Removed: 1 reply")
    assert b"NEEDLE" not in _all_bytes(town)
    assert len(town.world.chat.memory) == 0
    after = await town.bot.access.person(town.ada.id)
    assert (after.id != before, after.consent) == (True, "unknown")


def test_adapters_that_learnt_are_named() -> None:
    """The text names the versions that the next run replaces."""
    assert words.removed({"replies": 2}, ["discord-1@v3"]).endswith("without you: discord-1@v3.")
    assert words.removed({}, []) == words.NOTHING_REMOVED


async def test_everything_works_in_direct_messages(town: Town) -> None:
    """There nothing is kept, and the person is told so."""
    shown = told(await town.ada.user.slash("privacy show"))
    assert words.here("in direct messages", training=False, permitted=True) in shown.content
    pressed = await town.ada.user.click(shown, label=words.OPT_IN)
    assert told(pressed).content == words.OPTED_IN
    await town.ada.user.send_dm("NEEDLE")
    assert b"NEEDLE" not in _all_bytes(town)


class TestWithoutPermission:
    """The operator has stated no training permission."""

    @pytest.fixture
    def settings(self, tmp_path: Path, tiny_model: Path) -> Settings:
        """Settings without the permission."""
        return discord_settings(tmp_path / "world", tiny_model, training_permission="")

    async def test_nothing_is_kept_whatever_people_and_admins_chose(self, town: Town) -> None:
        """Consent and the server's switch are not enough, and /privacy show says so."""
        await train(town, town.ada)
        await say(town, "NEEDLE")
        shown = await ask(town, "show")
        assert words.here("on this server", training=True, permitted=False) in shown.content
        assert b"NEEDLE" not in _all_bytes(town)


async def test_what_was_said_before_opting_in_is_not_kept(town: Town) -> None:
    """Ada opts in between two messages of a talk: the talk that holds the first stays unkept."""
    await town.bot.places.change_channel(Spot(town.guild.id, town.channel.id), "test", listen="all")
    await town.bot.places.change_server(Spot(town.guild.id, town.channel.id), "test", training=True)
    first = await town.ada.send(town.channel, "NEEDLE before")
    await town.ada.slash(town.channel, "privacy opt-in")
    await town.ada.send(town.channel, "and after", reply_to=first)
    await town.ada.slash(town.channel, "reset")
    await town.ada.send(town.channel, "quite new")
    kept = await town.rows("SELECT kept FROM replies ORDER BY at")
    assert [row["kept"] for row in kept] == [0, 0, 1]
    assert b"NEEDLE" not in town.world.database.path.read_bytes()
