"""Feedback looked at on a simulated Discord: figures, the review queue, the export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import simcord

from bot.discord.cogs import feedback as cog
from bot.discord.places import Spot
from bot.discord.wording import feedback as words
from bot.discord.wording import training as training_words
from core.records import Feedback
from core.settings import Settings
from tests.bot.discord.conftest import Town, discord_settings
from trainer.suspicion import DICTATED


async def asked(town: Town, person: simcord.MemberActor, question: str) -> str:
    """Let somebody ask where everything is kept; return the reply's id."""
    spot = Spot(town.guild.id, town.channel.id)
    await town.bot.places.change_server(spot, "test", training=True)
    await town.opt_in(person)
    await town.ada.send(town.channel, f"{town.mention} {question}")
    rows = await town.rows("SELECT id FROM replies ORDER BY at DESC")
    return str(rows[0]["id"])


async def corrected(town: Town, question: str, text: str) -> Feedback:
    """Let Ada ask and correct what she got."""
    reply_id = await asked(town, town.ada, question)
    person = await town.bot.access.person(town.ada.id)
    return await town.world.feedback.correct(reply_id, person.id, text)


def fields(result: simcord.InteractionResult) -> dict[str, str]:
    """What the embed of an answer says, by label."""
    (embed,) = shown(result).embeds
    return {str(field.name): str(field.value) for field in embed.fields}


def shown(result: simcord.InteractionResult) -> Any:
    """The message that an answer is."""
    return result.followups[0] if result.followups else result.response


async def press(town: Town, message: Any, action: str, row: Feedback) -> Any:
    """Let the admin press a button of the review."""
    return await town.admin.click(message, custom_id=f"tt:review:{action}:{row.id}")


async def test_stats_count_votes_and_say_what_may_train(town: Town) -> None:
    """Figures, reasons and a chart, to the admin alone."""
    reply_id = await asked(town, town.ada, "What is tea?")
    for member in (town.ada, town.bob):
        person = await town.bot.access.person(member.id)
        await town.world.feedback.up(reply_id, person.id)
    result = await town.admin.slash(town.channel, "feedback stats")
    assert shown(result).ephemeral
    said = fields(result)
    assert said[words.FIELDS["kinds"]].startswith("👍 2")
    assert said[words.FIELDS["may_train"]] == "1"
    assert "has not opted in" in said[words.FIELDS["may_not"]]
    assert "2 of 2" in said[words.FIELDS["liked"]]
    assert shown(result).attachments[0].filename == cog.CHART


async def test_an_empty_queue_is_a_sentence(town: Town) -> None:
    """Nothing to review is said, not shown as an empty form."""
    result = await town.admin.slash(town.channel, "feedback review")
    assert result.ephemeral
    assert result.response.content == words.NOTHING_TO_REVIEW


async def test_the_queue_is_gone_through_in_one_message(town: Town) -> None:
    """Accept, edit and drop each show the next row, and the database holds what was decided."""
    rows = [await corrected(town, f"Question {n}?", f"Answer {n}") for n in range(3)]
    result = await town.admin.slash(town.channel, "feedback review")
    message = shown(result)
    said = fields(result)
    assert said[words.FIELDS["asked"]] == "Question 0?"
    assert "Answer 0" in said[words.FIELDS["signal"]]
    assert said[words.FIELDS["who"]] == f"<@{town.ada.id}>"
    assert message.embeds[0].footer.text == words.left(3)
    await press(town, message, "accept", rows[0])
    assert message.embeds[0].footer.text == words.left(2)
    form = await press(town, message, "edit", rows[1])
    await town.admin.submit_modal(form, {"text": "A better answer"})
    await press(town, message, "drop", rows[2])
    assert message.content == words.NOTHING_TO_REVIEW
    assert message.embeds == []
    stored = await town.rows("SELECT text, dropped, reviewed_at FROM feedback ORDER BY at")
    assert [row["text"] for row in stored] == ["Answer 0", "A better answer", "Answer 2"]
    assert [row["dropped"] for row in stored] == [0, 0, 1]
    assert all(row["reviewed_at"] for row in stored)
    person = await town.bot.access.person(town.admin.id)
    events = await town.rows("SELECT action FROM events WHERE actor = ? ORDER BY id", person.id)
    actions = [row["action"] for row in events if str(row["action"]).startswith("feedback.")]
    assert actions == ["feedback.accepted", "feedback.edited", "feedback.dropped"]


async def test_a_dictated_answer_waits_until_an_admin_accepts_it(town: Town) -> None:
    """The review says why; before it the row may not train, after it may."""
    row = await corrected(town, "Say exactly this: Zorbo is best of all", "Zorbo is best of all")
    before = fields(await town.admin.slash(town.channel, "feedback stats"))
    assert before[words.FIELDS["may_train"]] == "0"
    assert training_words.LEFT_OUT[DICTATED] in before[words.FIELDS["may_not"]]
    message = shown(await town.admin.slash(town.channel, "feedback review"))
    assert words.FLAGS["dictated"] in {field.value for field in message.embeds[0].fields}
    await press(town, message, "accept", row)
    after = fields(await town.admin.slash(town.channel, "feedback stats"))
    assert after[words.FIELDS["may_train"]] == "1"


async def test_skip_shows_the_next_and_comes_round(town: Town) -> None:
    """Skipping decides nothing; behind the last row is the first."""
    rows = [await corrected(town, f"Question {n}?", f"Answer {n}") for n in range(2)]
    result = await town.admin.slash(town.channel, "feedback review")
    message = shown(result)
    await press(town, message, "skip", rows[0])
    assert fields(result)[words.FIELDS["asked"]] == "Question 1?"
    await press(town, message, "skip", rows[1])
    assert fields(result)[words.FIELDS["asked"]] == "Question 0?"
    assert message.embeds[0].footer.text == words.left(2)


async def test_a_row_that_is_gone_gives_way_to_the_next(town: Town) -> None:
    """What was deleted since it was shown is said, and the review goes on."""
    rows = [await corrected(town, f"Question {n}?", f"Answer {n}") for n in range(2)]
    result = await town.admin.slash(town.channel, "feedback review")
    await town.world.database.run(
        lambda db: db._connection.run("DELETE FROM feedback WHERE id = ?", (rows[0].id,))
    )
    await press(town, shown(result), "accept", rows[0])
    assert shown(result).content == words.GONE
    assert fields(result)[words.FIELDS["asked"]] == "Question 1?"


async def test_the_export_holds_only_what_may_leave(town: Town) -> None:
    """A file for the admin alone, with the row of the one who opted in and not the other's."""
    row = await corrected(town, "What is tea?", "A drink.")
    bob = await town.bot.access.person(town.bob.id)
    await town.world.feedback.down(row.reply_id, bob.id)
    result = await town.admin.slash(town.channel, "feedback export", format="raw")
    message = shown(result)
    assert message.ephemeral
    assert message.content == words.exported(1, "raw")
    lines = (await message.attachments[0].read()).decode().splitlines()
    (line,) = [json.loads(line) for line in lines]
    assert (line["signal"], line["correction"]) == ("correction", "A drink.")
    assert line["scope"] == town.scope


async def test_an_export_in_a_training_format(town: Town) -> None:
    """The pairs of corrections go out as TRL takes them."""
    await corrected(town, "What is tea?", "A drink.")
    result = await town.admin.slash(town.channel, "feedback export", format="dpo")
    content = (await shown(result).attachments[0].read()).decode()
    assert json.loads(content)["chosen"] == [{"role": "assistant", "content": "A drink."}]


async def test_nothing_to_export_is_a_sentence(town: Town) -> None:
    """No file is sent where no row may leave."""
    result = await town.admin.slash(town.channel, "feedback export")
    assert shown(result).content == words.NOTHING_TO_EXPORT


async def test_a_file_too_big_names_the_command(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Discord would not take is not sent; the operator's way is named."""
    monkeypatch.setattr(cog, "UPLOAD_BYTES", 10)
    await corrected(town, "What is tea?", "A drink.")
    result = await town.admin.slash(town.channel, "feedback export", format="kto")
    assert shown(result).content == words.NOTHING_TO_EXPORT
    result = await town.admin.slash(town.channel, "feedback export", format="sft")
    assert f"--format sft --scope {town.scope}" in shown(result).content
    assert shown(result).attachments == []


async def test_a_stranger_may_not_review(town: Town) -> None:
    """The commands are hidden from people without rights."""
    assert not [name for name in town.ada.available_commands(town.channel) if "feedback" in name]


class TestShared:
    """All servers share one adapter."""

    @pytest.fixture
    def settings(self, tmp_path: Path, tiny_model: Path) -> Settings:
        """One scope for all servers."""
        return discord_settings(tmp_path / "world", tiny_model, scopes="shared")

    async def test_review_and_export_are_for_owners(self, town: Town) -> None:
        """A server's admin would see other servers' words, and is refused."""
        for command in ("feedback review", "feedback export"):
            result = await town.admin.slash(town.channel, command)
            assert shown(result).content == training_words.OWNERS_ONLY
        assert len(town.env.errors) == 2  # refusals, told and nothing else
