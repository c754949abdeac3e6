"""The platform's messages that show one reply, page by page, written and rewritten in place.

Invariant: a page that already reads as wanted is not sent again. Knows how to put pages where they
belong (an answer to a message, to a command, over an older version), not what is on them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import aiohttp
import discord
from discord import ui

from bot.discord.pace import channel_key, webhook_key

log = logging.getLogger(__name__)
PASSING = (discord.DiscordServerError, aiohttp.ClientError, OSError)
"""What Discord or the network fails with for a while."""
RETRY_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Pauses before the last words of a reply are tried again: a reply must not end half-shown."""


class Shown(Protocol):
    """A message of ours, wherever it came from."""

    @property
    def id(self) -> int: ...
    @property
    def channel(self) -> Any: ...
    async def edit(self, *, content: str | None, view: ui.View | None) -> Any: ...
    async def delete(self) -> None: ...


Send = Callable[[int, str, "ui.View | None"], Awaitable[Shown]]
"""Sends page number, content and view as a new message."""


class Sheet:
    """One reply's messages. `key` names what paces its edits."""

    def __init__(self, key: str, send: Send, *, messages: Sequence[Shown] = ()) -> None:
        self.key = key
        self._send = send
        self._messages = list(messages)
        self._shown: list[tuple[str, ui.View | None] | None] = [None] * len(self._messages)

    @property
    def message_ids(self) -> list[int]:
        """The ids of the messages, in order."""
        return [message.id for message in self._messages]

    @property
    def channel_id(self) -> int | None:
        """Where the messages are; None before the first."""
        return self._messages[0].channel.id if self._messages else None

    async def put(self, pages: Sequence[str], view: ui.View | None) -> bool:
        """Show these pages, the view under the last; return whether a message was added."""
        added = False
        for number, content in enumerate(pages):
            here = view if number == len(pages) - 1 else None
            if number == len(self._messages):
                self._messages.append(await self._send(number, content, here))
                self._shown.append((content, here))
                added = True
            elif self._shown[number] != (content, here):
                await self._messages[number].edit(content=content, view=here)
                self._shown[number] = (content, here)
        return added

    async def finish(self, pages: Sequence[str], view: ui.View | None) -> None:
        """Show the last words, trying again for a while if Discord or the network fails, and take
        away what is left of a longer version.
        """
        for pause in (*RETRY_S, None):
            try:
                await self.put(pages, view)
                break
            except PASSING as error:
                if pause is None:
                    raise
                log.warning("the end of a reply could not be shown, trying again: %s", error)
                await asyncio.sleep(pause)
        while len(self._messages) > len(pages):
            self._shown.pop()
            with contextlib.suppress(discord.NotFound):
                await self._messages.pop().delete()


def answer_sheet(message: discord.Message) -> Sheet:
    """A reply to a person's message. The nonce makes a request that is repeated harmless."""

    async def send(page: int, content: str, view: ui.View | None) -> Shown:
        more: dict[str, Any] = {"view": view} if view else {}
        if page == 0:
            more["reference"] = message.to_reference(fail_if_not_exists=False)
        return await message.channel.send(
            content,
            nonce=f"{message.id}.{page}",
            mention_author=False,
            suppress_embeds=True,
            **more,
        )

    return Sheet(channel_key(message.channel.id), send)


def command_sheet(interaction: discord.Interaction[Any]) -> Sheet:
    """The response to a command that was deferred."""

    async def send(page: int, content: str, view: ui.View | None) -> Shown:
        if page == 0:
            return await interaction.edit_original_response(content=content, view=view)
        more: dict[str, Any] = {"view": view} if view else {}
        return await interaction.followup.send(content, wait=True, suppress_embeds=True, **more)

    return Sheet(webhook_key(interaction.application_id, interaction.token), send)


def standing_sheet(channel: Any, messages: Sequence[Shown]) -> Sheet:
    """Messages that are there already, to be written over; more follow in the channel."""

    async def send(_page: int, content: str, view: ui.View | None) -> Shown:
        more: dict[str, Any] = {"view": view} if view else {}
        sent: Shown = await channel.send(content, suppress_embeds=True, **more)
        return sent

    return Sheet(channel_key(channel.id), send, messages=messages)
