"""Chatting on a simulated Discord: whom the bot answers, with what context, and what is kept."""

from __future__ import annotations

from simcord.env import Env

from bot.discord.wording import chat as words
from tests.bot.discord.conftest import Town


async def test_a_mention_is_answered_in_a_reply_with_buttons(town: Town) -> None:
    """A person who mentions the bot gets one reply to their message, with the four buttons."""
    asked = await town.ada.send(town.channel, f"{town.mention} Hello there")
    answer = town.channel.last_message
    assert answer.reference.message_id == asked.id
    assert button_ids(answer) == ["up", "down", "again", "edit"]
    (row,) = await town.rows("SELECT * FROM replies")
    assert (row["state"], row["scope"], row["adapter"]) == ("done", town.scope, "base")


async def test_what_is_not_addressed_to_the_bot_is_left_alone(town: Town) -> None:
    """People talk among themselves without an answer."""
    await town.ada.send(town.channel, "Bob, are you there?")
    assert len(town.channel.history()) == 1


async def test_without_consent_no_word_is_stored(town: Town) -> None:
    """Somebody who did not opt in leaves ids and figures in the database, and no text."""
    await town.ada.send(town.channel, f"{town.mention} my secret NEEDLE")
    (row,) = await town.rows("SELECT * FROM replies")
    assert (row["kept"], row["text"], row["prompt"]) == (0, "", "[]")
    assert await town.rows("SELECT * FROM turns") == []
    assert b"NEEDLE" not in town.world.database.path.read_bytes()


async def test_with_consent_and_training_on_question_and_reply_are_stored(town: Town) -> None:
    """Permission, the server's switch and consent together let the words be kept."""
    await switch_training_on(town)
    await town.opt_in(town.ada)
    asked = await town.ada.send(town.channel, f"{town.mention} What is a vote?")
    (row,) = await town.rows("SELECT * FROM replies")
    assert row["kept"] == 1
    assert "What is a vote?" in str(row["prompt"])
    assert row["text"]
    sources = await town.rows("SELECT message_id FROM reply_sources")
    assert sources == [{"message_id": str(asked.id)}]


async def test_one_author_without_consent_keeps_the_whole_chain_out(town: Town) -> None:
    """When Bob, who did not opt in, answers in Ada's chain, the second reply is not stored."""
    await switch_training_on(town)
    await town.opt_in(town.ada)
    await town.ada.send(town.channel, f"{town.mention} first")
    await town.bob.send(town.channel, "second", reply_to=town.channel.last_message)
    kept = await town.rows("SELECT kept FROM replies ORDER BY at")
    assert [row["kept"] for row in kept] == [1, 0]


async def test_a_chain_of_replies_tells_people_apart_by_name(town: Town) -> None:
    """The prompt of a reply in a chain holds what both people said, each under their name."""
    await town.ada.send(town.channel, f"{town.mention} I like tea")
    await town.bob.send(town.channel, "I like coffee", reply_to=town.channel.last_message)
    prompt = last_prompt(town)
    assert prompt[0].content == "ada: I like tea"
    assert prompt[1].role == "assistant"
    assert prompt[2].content == "bob: I like coffee"


async def test_one_person_alone_is_not_named(town: Town) -> None:
    """With a single person the model sees their words as they are."""
    await town.ada.send(town.channel, f"{town.mention} I like tea")
    assert [message.content for message in last_prompt(town)] == ["I like tea"]


async def test_a_direct_message_is_answered_with_what_was_said_before(env: Env, town: Town) -> None:
    """In a direct channel no mention is needed and the talk goes on."""
    user = env.create_user("dora")
    await user.send_dm("first words")
    await user.send_dm("second words")
    said = [message.content for message in last_prompt(town) if message.role == "user"]
    assert said == ["first words", "second words"]


async def test_reset_hides_what_was_said_before(town: Town) -> None:
    """After /reset a chain begins anew, and nothing is deleted."""
    await town.ada.send(town.channel, f"{town.mention} I like tea")
    before = town.channel.last_message
    result = await town.ada.slash(town.channel, "reset")
    assert result.ephemeral
    assert result.response.content == words.RESET
    await town.ada.send(town.channel, "and now?", reply_to=before)
    assert [message.content for message in last_prompt(town)] == ["and now?"]


async def test_chat_command_shows_the_question_and_answers_it(town: Town) -> None:
    """/chat works without any message: the question stands above the answer."""
    result = await town.ada.slash(town.channel, "chat", text="What is *tea*?")
    assert not result.ephemeral
    assert result.response.content.startswith("> What is")
    assert button_ids(result.response.message) == ["up", "down", "again", "edit"]


async def test_a_reply_to_a_commands_answer_knows_the_question(town: Town) -> None:
    """The question of /chat is on no message, and yet belongs to the chain."""
    result = await town.ada.slash(town.channel, "chat", text="I like tea")
    await town.ada.send(town.channel, "why?", reply_to=result.response.message)
    contents = [message.content for message in last_prompt(town)]
    assert contents[0] == "I like tea"
    assert contents[2] == "why?"


async def test_the_message_menu_answers_somebody_elses_message(town: Town) -> None:
    """“Reply to this” answers a message that did not mention the bot."""
    said = await town.bob.send(town.channel, "Is water wet?")
    result = await town.ada.context_menu(town.channel, "Reply to this", target=said)
    assert result.response.content.startswith("> Is water wet?")
    assert [message.content for message in last_prompt(town)] == ["Is water wet?"]


async def test_an_attachment_alone_is_declined_politely(town: Town) -> None:
    """A picture without words gets a kind refusal, and no reply is begun."""
    await town.ada.send(town.channel, town.mention, attachments=[("cat.png", b"png")])
    assert town.channel.last_message.content == words.ATTACHMENT_ONLY
    assert await town.rows("SELECT * FROM replies") == []


async def test_a_message_of_3000_characters_is_refused_with_the_limit(town: Town) -> None:
    """What is too long is said with both figures."""
    result = await town.ada.slash(town.channel, "chat", text="x" * 3000)
    assert result.ephemeral
    assert result.response.content == words.too_long(3000, 2000)


async def test_emoji_alone_are_answered(town: Town) -> None:
    """Emoji are words too."""
    await town.ada.send(town.channel, f"{town.mention} 🎉🎉🎉")
    assert [message.content for message in last_prompt(town)] == ["🎉🎉🎉"]


async def test_a_replayed_event_is_answered_once(town: Town) -> None:
    """The gateway may tell of a message twice; there is one reply."""
    message = await town.ada.send(town.channel, f"{town.mention} Hello")
    cog = town.bot.get_cog("ChatCog")
    await cog.on_message(message)  # type: ignore[union-attr]
    assert len(await town.rows("SELECT * FROM replies")) == 1


async def test_again_writes_a_second_version_and_the_arrows_turn_the_pages(town: Town) -> None:
    """🔁 shows another version in place, ◀ the first, ▶ the second; the message stays one."""
    await town.ada.send(town.channel, f"{town.mention} Hello")
    first = town.channel.last_message.content
    await town.ada.click(town.channel.last_message, custom_id=await shown_id(town, "again"))
    second = town.channel.last_message.content
    assert len(town.channel.history()) == 2
    assert button_ids(town.channel.last_message)[4:] == ["older", "position", "newer"]
    await town.ada.click(town.channel.last_message, custom_id=await shown_id(town, "older"))
    assert town.channel.last_message.content == first
    await town.ada.click(town.channel.last_message, custom_id=await shown_id(town, "newer"))
    assert town.channel.last_message.content == second


async def test_a_blocked_person_is_not_answered(town: Town) -> None:
    """Who was blocked by an admin gets silence for a message, and a word for a command."""
    from bot.discord.places import Spot

    spot = Spot(town.guild.id, town.channel.id)
    await town.bot.places.change_server(spot, "test", blocked=(town.ada.id,))
    await town.ada.send(town.channel, f"{town.mention} Hello")
    assert len(town.channel.history()) == 1
    result = await town.ada.slash(town.channel, "chat", text="Hello")
    assert result.response.content == words.BLOCKED


async def test_a_thread_that_grew_from_a_reply_is_a_conversation(env: Env, town: Town) -> None:
    """In such a thread no mention is needed, and everything said there is the context."""
    await town.ada.send(town.channel, f"{town.mention} Hello")
    message = await town.bot.get_channel(town.channel.id).fetch_message(  # type: ignore[union-attr]
        town.channel.last_message.id
    )
    await message.create_thread(name="talk")
    await env.settle()
    (thread,) = town.channel.threads
    await town.ada.send(thread, "one")
    await town.bob.send(thread, "two")
    contents = [message.content for message in last_prompt(town)]
    assert contents[0] == "ada: one"
    assert contents[-1] == "bob: two"


async def test_nobody_is_pinged_and_everyone_is_not_echoed(town: Town) -> None:
    """Each message of the bot is sent with all mentions switched off."""
    await town.ada.send(town.channel, f"{town.mention} say @everyone")
    sent = [
        request.json
        for request in town.env.http_requests
        if request.method == "POST" and request.path.endswith("/messages")
    ]
    assert sent
    assert all(body["allowed_mentions"]["parse"] == [] for body in sent)


def last_prompt(town: Town) -> list:
    """Return what the model was shown last."""
    held = list(town.world.chat.memory._held.values())[-1]
    return list(held.ask.prompt)


def button_ids(message: object) -> list[str]:
    """Return what the buttons under a message do."""
    rows = message.components  # type: ignore[attr-defined]
    return [item.custom_id.split(":")[1] for row in rows for item in row.children]


async def shown_id(town: Town, what: str) -> str:
    """Return the custom id of a button under the last message."""
    rows = town.channel.last_message.components
    ids = [item.custom_id for row in rows for item in row.children]
    return next(one for one in ids if one.startswith(f"tt:{what}:"))


async def switch_training_on(town: Town) -> None:
    """Let the server's words be kept, as /settings training does."""
    from bot.discord.places import Spot

    await town.bot.places.change_server(Spot(town.guild.id, town.channel.id), "test", training=True)
