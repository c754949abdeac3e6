"""Votes, reasons and corrections by button: what the person sees, and what is stored."""

from __future__ import annotations

import discord
import pytest
import simcord
from simcord.results import InteractionResult

from bot.discord.places import Spot
from bot.discord.wording import votes as words
from tests.bot.discord.conftest import Town, make_bot


async def switch_training_on(town: Town) -> None:
    """Let the words of people who opted in be kept on this server."""
    spot = Spot(town.guild.id, town.channel.id)
    await town.bot.places.change_server(spot, "system", training=True)


async def answered(town: Town, person: simcord.MemberActor) -> tuple[discord.Message, str]:
    """Have the bot answer a person; return the message and the reply's id."""
    await person.send(town.channel, f"{town.mention} Hello there")
    message = town.channel.last_message
    assert message is not None
    (row,) = await town.rows(
        "SELECT reply_id FROM reply_messages WHERE message_id = ?", str(message.id)
    )
    return message, str(row["reply_id"])


async def kept_answer(town: Town) -> tuple[discord.Message, str]:
    """Have a reply to Ada that is kept."""
    await switch_training_on(town)
    await town.opt_in(town.ada)
    return await answered(town, town.ada)


def told(result: InteractionResult) -> str:
    """Return what the one who pressed was told, and they alone."""
    assert result.response is not None
    assert result.response.ephemeral
    return result.response.content


async def votes(town: Town) -> list[tuple[object, object]]:
    """Return kind and reasons of everything stored."""
    rows = await town.rows("SELECT kind, reasons FROM feedback ORDER BY at")
    return [(row["kind"], row["reasons"]) for row in rows]


async def test_a_vote_is_counted_and_told_to_the_voter_alone(town: Town) -> None:
    """👍 stores one row and one private line; the channel sees nothing."""
    message, reply_id = await answered(town, town.ada)
    seen = len(town.channel.history(viewer=town.ada))
    result = await town.bob.click(message, custom_id=f"tt:up:{reply_id}")
    assert told(result) == words.UP
    assert await votes(town) == [("up", "[]")]
    assert len(town.channel.history(viewer=town.ada)) == seen


async def test_the_same_button_again_says_it_is_counted(town: Town) -> None:
    """However often somebody presses, one vote stands."""
    message, reply_id = await answered(town, town.ada)
    for _ in range(10):
        result = await town.ada.click(message, custom_id=f"tt:up:{reply_id}")
    assert told(result) == words.UP_AGAIN
    assert await votes(town) == [("up", "[]")]


async def test_a_changed_mind_is_said_to_be_one(town: Town) -> None:
    """👎, then 👍, then 👎: the last one stands and each change is confirmed."""
    message, reply_id = await answered(town, town.ada)
    first = await town.ada.click(message, custom_id=f"tt:down:{reply_id}")
    second = await town.ada.click(message, custom_id=f"tt:up:{reply_id}")
    third = await town.ada.click(message, custom_id=f"tt:down:{reply_id}")
    assert [told(result) for result in (first, second, third)] == [
        words.DOWN,
        words.UP_CHANGED,
        words.DOWN_CHANGED,
    ]
    assert await votes(town) == [("down", "[]")]


async def test_reasons_are_one_tap_each_and_work_after_a_restart(town: Town) -> None:
    """Two reasons fit; the private message shows what is kept; a second tap takes one off."""
    message, reply_id = await answered(town, town.ada)
    asked = (await town.ada.click(message, custom_id=f"tt:down:{reply_id}")).response
    assert asked is not None
    await town.ada.click(asked, label=words.REASON_LABELS["too long"])
    await town.env.restart_bot(make_bot(town.world))
    await town.ada.click(asked, label=words.REASON_LABELS["wrong"])
    assert await votes(town) == [("down", '["wrong","too long"]')]
    assert asked.content == words.reasons_kept(["wrong", "too long"])
    await town.ada.click(asked, label=words.REASON_LABELS["wrong"])
    assert await votes(town) == [("down", '["too long"]')]


async def test_a_reason_for_a_vote_that_changed_is_refused(town: Town) -> None:
    """The old private message cannot turn a 👍 back into a 👎."""
    message, reply_id = await answered(town, town.ada)
    asked = (await town.ada.click(message, custom_id=f"tt:down:{reply_id}")).response
    assert asked is not None
    await town.ada.click(message, custom_id=f"tt:up:{reply_id}")
    await town.ada.click(asked, label=words.REASON_LABELS["rude"])
    assert asked.content == words.NO_DOWN
    assert await votes(town) == [("up", "[]")]


@pytest.mark.parametrize("kind", ["up", "down"])
async def test_a_vote_can_be_taken_back(town: Town, kind: str) -> None:
    """“Take it back” removes the vote; pressed again it says that there is none."""
    message, reply_id = await answered(town, town.ada)
    answer = (await town.ada.click(message, custom_id=f"tt:{kind}:{reply_id}")).response
    again = (await town.ada.click(message, custom_id=f"tt:{kind}:{reply_id}")).response
    assert answer is not None
    assert again is not None
    await town.ada.click(answer, label=words.TAKE_BACK)
    await town.ada.click(again, label=words.TAKE_BACK)
    assert (answer.content, again.content) == (words.TAKEN_BACK, words.NOTHING_TO_TAKE_BACK)
    assert await votes(town) == []


async def test_who_never_decided_is_told_of_privacy_where_it_matters(town: Town) -> None:
    """One sentence points to /privacy with permission and training on, until a person decides."""
    await switch_training_on(town)
    message, reply_id = await answered(town, town.ada)
    first = await town.ada.click(message, custom_id=f"tt:up:{reply_id}")
    assert told(first) == f"{words.UP}\n{words.CONSENT_HINT}"
    await town.opt_in(town.ada)
    second = await town.ada.click(message, custom_id=f"tt:up:{reply_id}")
    assert told(second) == words.UP_AGAIN


async def test_two_versions_make_a_pair(town: Town) -> None:
    """🔁, then 👍 on the new version: it is preferred over the old one."""
    message, old = await answered(town, town.ada)
    await town.ada.click(message, custom_id=f"tt:again:{old}")
    (row,) = await town.rows("SELECT id FROM replies WHERE replaces = ?", old)
    new = str(row["id"])
    await town.ada.click(message, custom_id=f"tt:up:{new}")
    pairs = await town.rows(
        "SELECT reply_id, other_reply_id FROM feedback WHERE kind = 'preference'"
    )
    assert pairs == [{"reply_id": new, "other_reply_id": old}]


async def test_a_reply_that_is_gone_is_said_to_be(town: Town) -> None:
    """A button on a message whose reply expired answers plainly, and stores nothing."""
    message, reply_id = await answered(town, town.ada)
    await town.world.database.run(
        lambda db: db.conversations.remove(town.scope, "discord", actor="system")
    )
    for what in ("up", "down", "edit"):
        if what == "edit":
            town.world.chat.memory.forget_replies(frozenset({reply_id}))
        result = await town.ada.click(message, custom_id=f"tt:{what}:{reply_id}")
        assert told(result) == words.GONE


async def test_blocked_people_do_not_vote(town: Town) -> None:
    """Who is blocked on the server is told so, and nothing is stored."""
    message, reply_id = await answered(town, town.ada)
    spot = Spot(town.guild.id, town.channel.id)
    await town.bot.places.change_server(spot, "system", blocked=(town.bob.id,))
    result = await town.bob.click(message, custom_id=f"tt:down:{reply_id}")
    assert told(result) == words.BLOCKED
    assert await votes(town) == []


async def test_a_correction_opens_with_the_reply_and_is_stored(town: Town) -> None:
    """✏️ shows the reply's own text to edit; what is sent is kept and thanked for."""
    message, reply_id = await kept_answer(town)
    shown = await town.ada.click(message, custom_id=f"tt:edit:{reply_id}")
    assert shown.modal is not None
    assert shown.modal["title"] == words.CORRECTION_TITLE
    (row,) = await town.rows("SELECT text FROM replies")
    assert shown.modal["components"][0]["component"]["value"] == row["text"]
    result = await town.ada.submit_modal(shown, {"text": "A better answer."})
    assert told(result) == words.CORRECTED
    (stored,) = await town.rows("SELECT kind, text FROM feedback")
    assert stored == {"kind": "correction", "text": "A better answer."}


async def test_a_form_opened_before_a_restart_is_taken_after_it(town: Town) -> None:
    """Whoever was writing while the bot restarted loses nothing."""
    message, reply_id = await kept_answer(town)
    shown = await town.ada.click(message, custom_id=f"tt:edit:{reply_id}")
    await town.env.restart_bot(make_bot(town.world))
    result = await town.ada.submit_modal(shown, {"text": "A better answer."})
    assert told(result) == words.CORRECTED


async def test_an_unchanged_correction_says_so(town: Town) -> None:
    """The reply's own text sent back stores nothing."""
    message, reply_id = await kept_answer(town)
    (row,) = await town.rows("SELECT text FROM replies")
    shown = await town.ada.click(message, custom_id=f"tt:edit:{reply_id}")
    result = await town.ada.submit_modal(shown, {"text": str(row["text"])})
    assert "the same as the reply" in told(result)
    assert await votes(town) == []


async def test_a_correction_waits_for_consent(town: Town) -> None:
    """Bob never opted in: his words are stored only after he presses the button that says so."""
    message, reply_id = await kept_answer(town)
    shown = await town.bob.click(message, custom_id=f"tt:edit:{reply_id}")
    result = await town.bob.submit_modal(shown, {"text": "Bob's NEEDLE."})
    assert told(result) == words.NEEDS_CONSENT
    assert b"NEEDLE" not in town.world.database.path.read_bytes()
    assert result.response is not None
    await town.bob.click(result.response, label=words.OPT_IN_AND_KEEP)
    assert result.response.content == words.OPTED_IN
    (stored,) = await town.rows("SELECT text FROM feedback")
    assert stored["text"] == "Bob's NEEDLE."
    assert (await town.bot.access.person(town.bob.id)).consent == "given"


@pytest.mark.parametrize("loss", ["restart", "time"])
async def test_a_correction_that_waited_too_long_is_written_again(town: Town, loss: str) -> None:
    """After a restart or a quarter of an hour nothing is held, stored or agreed to."""
    message, reply_id = await kept_answer(town)
    shown = await town.bob.click(message, custom_id=f"tt:edit:{reply_id}")
    result = await town.bob.submit_modal(shown, {"text": "Bob's words."})
    assert result.response is not None
    if loss == "restart":
        await town.env.restart_bot(make_bot(town.world))
    else:
        await town.env.advance_time(901)
    await town.bob.click(result.response, label=words.OPT_IN_AND_KEEP)
    assert result.response.content == words.DRAFT_GONE
    assert await votes(town) == []
    assert (await town.bot.access.person(town.bob.id)).consent == "unknown"


async def test_a_reply_that_is_not_kept_opens_no_form(town: Town) -> None:
    """Nobody writes a correction in vain: why it cannot be kept is said before."""
    message, reply_id = await answered(town, town.ada)
    result = await town.ada.click(message, custom_id=f"tt:edit:{reply_id}")
    assert told(result) == words.NOT_KEPT_TRAINING_OFF
    await switch_training_on(town)
    result = await town.ada.click(message, custom_id=f"tt:edit:{reply_id}")
    assert told(result) == words.NOT_KEPT_CONSENT


async def test_no_words_are_stored_where_training_was_switched_off_since(town: Town) -> None:
    """A form sent after the admin's change stores nothing, nor does consent given then."""
    message, reply_id = await kept_answer(town)
    shown = await town.ada.click(message, custom_id=f"tt:edit:{reply_id}")
    spot = Spot(town.guild.id, town.channel.id)
    await town.bot.places.change_server(spot, "system", training=False)
    result = await town.ada.submit_modal(shown, {"text": "too late"})
    assert told(result) == words.NOT_KEPT_TRAINING_OFF
    assert await votes(town) == []


@pytest.mark.parametrize("what", ["up", "down", "edit"])
async def test_a_reply_that_is_not_whole_is_left_alone(town: Town, what: str) -> None:
    """A press while the reply is being written stores nothing and says why."""
    message, reply_id = await kept_answer(town)
    town.world.chat.memory.forget_replies(frozenset({reply_id}))
    await town.rows("UPDATE replies SET state = 'pending'")
    result = await town.ada.click(message, custom_id=f"tt:{what}:{reply_id}")
    assert told(result) in {words.STILL_WRITING, words.STILL_WRITING_EDIT}
    assert await votes(town) == []


async def test_no_view_is_held_for_the_buttons_to_work(town: Town) -> None:
    """A vote's answer leaves nothing in discord.py's store: the buttons carry all they need."""
    await town.ada.send(town.channel, f"{town.mention} Hello")
    down = next(
        item.custom_id
        for row in town.channel.last_message.components
        for item in row.children
        if item.custom_id.startswith("tt:down:")
    )
    await town.ada.click(town.channel.last_message, custom_id=down)
    store = town.bot._connection._view_store
    assert (store._views, store._synced_message_views) == ({}, {})
