"""What was asked and can be asked once more: by the message's id on Discord, or from memory."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import discord

from bot.discord.places import Places, Spot
from bot.memory import Ask

LIMIT = 500
"""Questions of commands that can be tried again; older ones are asked anew."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question ready to be answered. `token` is what “Try again” carries; `head` stands above."""

    ask: Ask
    token: str
    head: str = ""
    notice: str = ""


class Questions:
    """Questions that no message on Discord holds (those of commands), in memory only."""

    def __init__(self) -> None:
        self._held: OrderedDict[str, tuple[Ask, str]] = OrderedDict()

    def hold(self, ask: Ask, head: str) -> Question:
        """Keep a command's question for another try."""
        token = f"x{secrets.token_hex(8)}"
        self._held[token] = (ask, head)
        while len(self._held) > LIMIT:
            self._held.popitem(last=False)
        return Question(ask, token, head)

    def get(self, token: str) -> Question | None:
        """Return a question kept before, or None."""
        held = self._held.get(token)
        return Question(held[0], token, held[1]) if held else None

    def forget_person(self, person_id: str) -> None:
        """Drop every question in which this person wrote."""
        self._drop(lambda ask: person_id in ask.authors)

    def forget_source(self, message_id: str) -> None:
        """Drop every question made from this message."""
        self._drop(lambda ask: message_id in ask.sources)

    def forget_conversations(self, conversation_ids: frozenset[str]) -> None:
        """Drop every question of these conversations."""
        self._drop(lambda ask: ask.conversation_id in conversation_ids)

    def _drop(self, wanted: Callable[[Ask], bool]) -> None:
        for token in [key for key, (ask, _) in self._held.items() if wanted(ask)]:
            del self._held[token]


async def as_now(ask: Ask, places: Places, spot: Spot) -> Ask:
    """Return a question from before; it is kept only if it was then and may be now."""
    may = ask.kept and await places.may_keep(spot, ask.authors)
    return replace(ask, kept=may)


async def message_of(
    interaction: discord.Interaction[Any], message_id: int
) -> discord.Message | None:
    """Return a message of the interaction's channel, or None if it is gone or cannot be read."""
    shown = interaction.message
    if shown and shown.reference and isinstance(shown.reference.resolved, discord.Message):
        return shown.reference.resolved
    channel = interaction.channel
    if not isinstance(channel, discord.abc.Messageable):
        return None
    try:
        return await channel.fetch_message(message_id)
    except discord.HTTPException:
        return None
