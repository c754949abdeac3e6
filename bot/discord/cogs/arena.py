"""Two replies side by side, blind: /arena, and one reply in so many where an admin wants it.

Invariant: a message shows both replies or none, it says nowhere which version wrote which, and
deleting it deletes them: its id is known before a word is written.
"""

from __future__ import annotations

import contextlib
import logging
import random
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import discord
from discord import app_commands, ui
from discord.ext import commands

from bot.arena import ArenaService, Choice, OpenMatch
from bot.discord.answers import acknowledge, guarded, in_time, tell
from bot.discord.asking import ask_of, asked_head
from bot.discord.context import Context
from bot.discord.lasting import LastingView
from bot.discord.places import spot_of
from bot.discord.text import pages, safe
from bot.discord.wording import arena as words
from bot.discord.wording import chat as chat_words
from bot.memory import Ask
from core.errors import Conflict, EngineBusy, NotFound, ThumbtuneError
from core.generation import Message
from core.records import ID_DIGITS

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot

log = logging.getLogger(__name__)
REPLY_LIMIT = 2800
"""Both replies with their titles and notes must fit into the 6000 characters that all embeds of a
message may have together."""
CHOICES: tuple[Choice, ...] = get_args(Choice)
_LABELS = dict(zip(CHOICES, (*words.TITLES, words.TIE), strict=True))


class ChoiceButton(
    ui.DynamicItem[ui.Button[Any]],
    template=rf"tt:arena:(?P<match>m_{ID_DIGITS}):(?P<choice>{'|'.join(CHOICES)})",
):
    """A, B or Tie under the two replies of a match."""

    def __init__(self, match_id: str, choice: Choice) -> None:
        self.match_id, self.choice = match_id, choice
        super().__init__(
            ui.Button(
                label=_LABELS[choice],
                style=discord.ButtonStyle.secondary,
                custom_id=f"tt:arena:{match_id}:{choice}",
            )
        )

    @classmethod
    async def from_custom_id(
        cls, _interaction: discord.Interaction[Any], _item: ui.Item[Any], match: re.Match[str], /
    ) -> ChoiceButton:
        """Build the button again from what the message carries."""
        choice = next(one for one in CHOICES if one == match["choice"])
        return cls(match["match"], choice)

    @guarded
    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        """Hand the choice to the arena."""
        bot: ThumbtuneBot = interaction.client
        await bot.arena.choose(interaction, self.match_id, self.choice)


class ArenaCog(commands.Cog):
    """Two replies side by side, blind: /arena, and one reply in so many where an admin wants it."""

    def __init__(self, bot: ThumbtuneBot) -> None:
        self._bot = bot
        self._random = random.Random()
        world = bot.world
        self._arena = ArenaService(world.database, world.chat, world.registry)

    async def cog_load(self) -> None:
        """Register the buttons; they work on messages of any age."""
        self._bot.add_dynamic_items(ChoiceButton)

    @app_commands.command(name="arena")
    @app_commands.describe(prompt="What both replies should answer")
    async def arena(self, interaction: discord.Interaction[Any], prompt: str) -> None:
        """Get two replies from two versions of me, and say which one is better."""
        if not await self._bot.door.lets_in(interaction, prompt):
            return
        scope = self._bot.places.scope(interaction.guild_id)
        try:
            await in_time(interaction, self._arena.sides(scope), publicly=True)
        except Conflict:
            await tell(interaction, words.ONLY_ONE_VERSION)
            return
        await acknowledge(interaction, publicly=True)
        self._bot.writing()
        shown = await interaction.original_response()
        try:
            ask = await self._ask(interaction, prompt, message_id=shown.id)
            opened = await self._arena.open_match(ask, rng=self._random)
        except ThumbtuneError as error:
            with contextlib.suppress(discord.NotFound):
                await interaction.edit_original_response(content=_apology(error))
            return
        with contextlib.suppress(discord.NotFound):  # deleted meanwhile, and the replies with it
            await interaction.edit_original_response(
                content=asked_head(prompt), embeds=_embeds(opened), view=_buttons(opened.id)
            )

    async def offer(
        self, *, ask: Ask, channel: discord.abc.Messageable, answer_to: discord.Message
    ) -> bool:
        """Answer a message with two replies to choose from; False if it is better answered by one.

        That is so where there is one version only, and where either side failed: nothing is left
        in the channel then.
        """
        try:
            await self._arena.ready(ask.scope)
        except ThumbtuneError as error:
            log.info("one reply instead of two: %s", error)
            return False
        self._bot.writing()
        reference = answer_to.to_reference(fail_if_not_exists=False)
        shown = await channel.send(words.WRITING, reference=reference, mention_author=False)
        ask = replace(ask, sources=(*ask.sources, str(shown.id)))
        try:
            opened = await self._arena.open_match(ask, rng=self._random)
        except ThumbtuneError as error:
            log.warning("two replies could not be written, one will be: %s", error)
            with contextlib.suppress(discord.NotFound):
                await shown.delete()
            return False
        with contextlib.suppress(discord.NotFound):
            await shown.edit(
                content=words.OFFERED, embeds=_embeds(opened), view=_buttons(opened.id)
            )
        return True

    async def choose(
        self, interaction: discord.Interaction[Any], match_id: str, choice: Choice
    ) -> None:
        """Store a choice and tell the one who made it, without saying who wrote what."""
        await tell(
            interaction, await in_time(interaction, self._choose(interaction, match_id, choice))
        )

    async def _choose(
        self, interaction: discord.Interaction[Any], match_id: str, choice: Choice
    ) -> str:
        if await self._bot.access.blocked(interaction.user.id, interaction.channel):
            return chat_words.BLOCKED
        person = await self._bot.access.person(interaction.user.id)
        try:
            await self._arena.choose(match_id, person.id, choice)
        except NotFound:
            return words.MATCH_GONE
        return words.TIED if choice == "tie" else words.chosen(_LABELS[choice])

    async def _ask(
        self, interaction: discord.Interaction[Any], prompt: str, *, message_id: int
    ) -> Ask:
        """Turn a prompt into a question of its own, without what was said before."""
        person = await self._bot.access.person(interaction.user.id)
        context = Context(
            messages=(Message("user", self._bot.world.chat.checked(prompt)),),
            authors=(person.id,),
            sources=(str(message_id),),
            keepable=True,
            root_id=interaction.id,
        )
        return await ask_of(self._bot, spot_of(interaction.channel), context, person)


def _apology(error: ThumbtuneError) -> str:
    if isinstance(error, EngineBusy):
        return words.busy(error.waiting)
    log.warning("a match could not be written: %s", error)
    return words.FAILED


def _embeds(opened: OpenMatch) -> list[discord.Embed]:
    """Return both replies, alike in everything but their words."""
    texts = (opened.first, opened.second)
    embeds = [
        discord.Embed(title=title, description=_shown(text))
        for title, text in zip(words.TITLES, texts, strict=True)
    ]
    embeds[-1].set_footer(text=words.FOOTER)
    return embeds


def _shown(text: str) -> str:
    """Return a reply made harmless, and cut with a note where there is no room for it."""
    parts = pages(safe(text), limit=REPLY_LIMIT)
    if not parts:
        return words.NOTHING_WRITTEN
    return parts[0] if len(parts) == 1 else f"{parts[0]}\n{words.CUT_HERE}"


def _buttons(match_id: str) -> ui.View:
    view = LastingView()
    for choice in CHOICES:
        view.add_item(ChoiceButton(match_id, choice))
    return view
