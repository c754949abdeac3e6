"""Buttons, forms and commands of the double, used by the real client over real sockets."""

from __future__ import annotations

import asyncio
from typing import Any

import discord
import pytest
from discord import app_commands

from tests.bot.discord.small import Small, running, until
from tests.discord_double import Double


class Ask(discord.ui.Modal, title="Correct it"):
    """A form with one field."""

    text = discord.ui.TextInput(label="Better", custom_id="better")

    async def on_submit(self, interaction: discord.Interaction) -> None:
        """Say back what was written."""
        await interaction.response.send_message(f"kept: {self.text.value}", ephemeral=True)


class Buttons(discord.ui.View):
    """Buttons that edit, defer, open a form."""

    def __init__(self) -> None:
        super().__init__(timeout=None)

    @discord.ui.button(label="up", custom_id="up")
    async def up(self, interaction: discord.Interaction, _: Any) -> None:
        """Change the message pressed."""
        await interaction.response.edit_message(content="thanks")

    @discord.ui.button(label="slow", custom_id="slow")
    async def slow(self, interaction: discord.Interaction, _: Any) -> None:
        """Take time, then answer twice."""
        await interaction.response.defer(ephemeral=True, thinking=True)
        await interaction.followup.send("first")
        await interaction.followup.send("second", ephemeral=True)

    @discord.ui.button(label="fix", custom_id="fix")
    async def fix(self, interaction: discord.Interaction, _: Any) -> None:
        """Open the form."""
        await interaction.response.send_modal(Ask())


async def test_buttons_edit_and_defer(double: Double) -> None:
    """A press edits its message; a deferred one fills the spinner and then follows up."""
    ann = await double.user("ann")
    async with running(Small(), double) as client:
        await (await client.fetch_user(ann.id)).send("vote", view=Buttons())
        voted = double.messages(double.world.dm_with(ann))[0]
        pressed = await (await double.press(ann, voted, "up"))
        assert pressed.acknowledged_after_s < 3
        assert pressed.response.content == voted.content == "thanks"
        slow = await (await double.press(ann, voted, "slow"))
        assert slow.response.ephemeral and slow.response.content == "first"
        assert [m.content for m in await slow.until_followups(1)] == ["second"]
        assert double.messages(voted.channel) == [voted]
        with pytest.raises(ValueError, match="no 'down' on the message"):
            await double.press(ann, voted, "down")


async def test_a_form_goes_there_and_back(double: Double) -> None:
    """A button opens a form, and what is written comes back in an ephemeral answer."""
    ann = await double.user("ann")
    async with running(Small(), double) as client:
        await (await client.fetch_user(ann.id)).send("vote", view=Buttons())
        voted = double.messages(double.world.dm_with(ann))[0]
        opened = await (await double.press(ann, voted, "fix"))
        assert opened.response.modal["title"] == "Correct it"
        sent = await (await double.submit_modal(ann, opened, {"better": "shorter"}))
        assert (sent.response.content, sent.response.ephemeral) == ("kept: shorter", True)


async def test_commands_are_registered_and_used(double: Double) -> None:
    """A subcommand with options and a message's menu reach the bot; admins' ones need the right."""
    ann, bea = await double.user("ann"), await double.user("bea")
    guild = await double.guild("garden", members=[ann, bea])
    channel = await double.text_channel(guild, "talk")
    client = Small()
    group = app_commands.Group(
        name="training", description="t", default_permissions=discord.Permissions(32)
    )

    @group.command(description="Show it")
    async def status(
        interaction: discord.Interaction, last: int, who: discord.Member | None = None
    ) -> None:
        await interaction.response.send_message(f"{last} {who}")

    @client.tree.context_menu(name="Correct")
    async def correct(interaction: discord.Interaction, message: discord.Message) -> None:
        await interaction.response.send_message(message.content)

    client.tree.add_command(group)
    async with running(client, double):
        assert len(await client.tree.sync()) == 2
        used = await (await double.slash(ann, channel, "training status", last=3, who=bea))
        assert used.response.content == "3 bea"
        said = await double.say(bea, channel, "hello")
        menu = await (await double.context_menu(ann, said, "Correct"))
        assert menu.response.content == "hello"
        with pytest.raises(ValueError, match="bea is not offered 'training'"):
            await double.slash(bea, channel, "training status", last=1)


async def test_an_interactions_answer_has_its_time(double: Double) -> None:
    """A second response is refused with 40060, and the token dies after 15 minutes."""
    ann = await double.user("ann")
    client = Small()
    caught: list[discord.Interaction] = []

    @client.tree.command(description="Wait")
    async def wait(interaction: discord.Interaction) -> None:
        caught.append(interaction)
        await interaction.response.send_message("here")

    async with running(client, double):
        await client.tree.sync()
        await (await double.slash(ann, double.world.dm_with(ann), "wait"))
        caught[0].response._response_type = None
        with pytest.raises(discord.HTTPException, match="40060"):
            await caught[0].response.send_message("twice")
        double.clock.advance(15 * 60 + 1)
        with pytest.raises(discord.HTTPException, match="50027"):
            await caught[0].followup.send("late")


async def test_a_late_first_response_is_refused(double: Double) -> None:
    """An answer after three seconds meets an unknown interaction, and the lateness is noted."""
    ann = await double.user("ann")
    client = Small()
    called, answered = asyncio.Event(), asyncio.Event()
    codes: list[int] = []

    @client.tree.command(description="Wait")
    async def wait(interaction: discord.Interaction) -> None:
        called.set()
        await answered.wait()
        try:
            await interaction.response.send_message("late")
        except discord.NotFound as refused:
            codes.append(refused.code)

    async with running(client, double):
        await client.tree.sync()
        used = await double.slash(ann, double.world.dm_with(ann), "wait")
        await called.wait()
        used.sent_at -= 3.5
        answered.set()
        await until(lambda: codes == [10062])
        assert used.response is None and used.refused_after_s[0] > 3
