"""What the model is shown: built from Discord's own history each time, never from a copy of ours.

In a thread, a direct channel or a channel where everything is listened to, that is what was said
last; elsewhere the chain of replies. People are told apart by their display names where there are
several. The oldest goes first when there is no room (the engine counts the tokens).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import discord

from bot.discord.places import spot_of
from bot.discord.text import plain_name
from core.errors import NotFound
from core.generation import Message

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot

_NOTICE_LINE = re.compile(r"^-# .*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Context:
    """A prompt without its system message, and where it comes from.

    `authors` are ids of people, `sources` ids of the messages it was made from. `keepable` is false
    when it rests on an earlier reply that may not be stored, or on words from before their writer's
    consent. `root_id` is the first message of the chain.
    """

    messages: tuple[Message, ...]
    authors: tuple[str, ...]
    sources: tuple[str, ...]
    keepable: bool
    root_id: int


@dataclass(frozen=True, slots=True)
class _Line:
    role: Literal["user", "assistant"]
    text: str
    message_id: int
    name: str = ""
    authors: tuple[str, ...] = ()
    keepable: bool = True
    sources: tuple[str, ...] = ()


async def build(bot: ThumbtuneBot, message: discord.Message, *, whole_channel: bool) -> Context:
    """Build the context that ends with `message`.

    `whole_channel` takes what was said last in the channel, else the chain of replies.
    """
    earlier = await (_said_last(bot, message) if whole_channel else _chain(bot, message))
    reset = await bot.places.reset_after(spot_of(message.channel))
    fresh = [one for one in earlier if one.id > reset]
    lines = await _lines(bot, [*fresh, message])
    return _context(lines, root_id=(fresh or [message])[0].id)


async def build_for_command(
    bot: ThumbtuneBot, interaction: discord.Interaction[Any], text: str
) -> Context:
    """Build the context of a command's text: in a thread or direct channel with what was said."""
    spot = spot_of(interaction.channel)
    person = await bot.access.person(interaction.user.id)
    name = plain_name(interaction.user.display_name)
    own = _Line("user", text, interaction.id, name, (person.id,))
    channel = interaction.channel
    talk = spot.thread_id is not None or spot.guild_id is None
    if not talk or not isinstance(channel, discord.abc.Messageable):
        return _context([own], root_id=interaction.id)
    limit = bot.world.settings.chat.history_messages
    try:
        found = [one async for one in channel.history(limit=limit)][::-1]
    except discord.HTTPException:
        found = []
    reset = await bot.places.reset_after(spot)
    lines = await _lines(bot, [one for one in found if one.id > reset])
    return _context([*lines, own], root_id=interaction.id)


def _context(lines: list[_Line], *, root_id: int) -> Context:
    people = {author for line in lines if line.role == "user" for author in line.authors}
    sources = (one for line in lines for one in (str(line.message_id), *line.sources))
    return Context(
        messages=_prompt(lines, named=len(people) > 1),
        authors=tuple(dict.fromkeys(author for line in lines for author in line.authors)),
        sources=tuple(dict.fromkeys(sources)),
        keepable=all(line.keepable for line in lines),
        root_id=root_id,
    )


def _prompt(lines: Iterable[_Line], *, named: bool) -> tuple[Message, ...]:
    """Let the roles alternate, a person first, as every chat template allows."""
    messages: list[Message] = []
    for line in lines:
        text = f"{line.name}: {_indented(line.text)}" if named and line.name else line.text
        if messages and messages[-1].role == line.role:
            messages[-1] = replace(messages[-1], content=f"{messages[-1].content}\n{text}")
        elif messages or line.role == "user":
            messages.append(Message(line.role, text))
    return tuple(messages)


def _indented(text: str) -> str:
    """Return a text no line of which can pass for another speaker's."""
    return text.replace("\n", "\n  ")


async def _said_last(bot: ThumbtuneBot, message: discord.Message) -> list[discord.Message]:
    """Return what was said before, oldest first; the chain where the history cannot be read."""
    limit = bot.world.settings.chat.history_messages
    try:
        found = [one async for one in message.channel.history(limit=limit, before=message)]
    except discord.HTTPException:
        return await _chain(bot, message)
    return found[::-1]


async def _chain(bot: ThumbtuneBot, message: discord.Message) -> list[discord.Message]:
    """Return the messages that this one replies to, and those they reply to, oldest first."""
    found: list[discord.Message] = []
    current = message
    while len(found) < bot.world.settings.chat.history_messages:
        before = await replied_to(current)
        if before is None:
            break
        found.append(before)
        current = before
    return found[::-1]


async def replied_to(message: discord.Message) -> discord.Message | None:
    """Return the message that this one replies to, if it is still there and can be seen."""
    reference = message.reference
    if reference is None or reference.message_id is None or message.is_system():
        return None
    if isinstance(reference.resolved, discord.DeletedReferencedMessage):
        return None
    known = reference.resolved or reference.cached_message
    if known is not None:
        return known
    try:
        return await message.channel.fetch_message(reference.message_id)
    except discord.HTTPException:
        return None


async def _lines(bot: ThumbtuneBot, messages: list[discord.Message]) -> list[_Line]:
    lines: list[_Line] = []
    seen: set[str] = set()
    for message in messages:
        if bot.user is not None and message.author.id == bot.user.id:
            lines += await _own_lines(bot, message, seen, first=not lines)
        elif message.author.bot or message.is_system():
            continue
        elif text := spoken(bot, message):
            person = await bot.access.person(message.author.id)
            name = plain_name(message.author.display_name)
            agreed = message.id >= person.consent_from
            lines.append(_Line("user", text, message.id, name, (person.id,), agreed))
    return lines


async def _own_lines(
    bot: ThumbtuneBot, message: discord.Message, seen: set[str], *, first: bool
) -> list[_Line]:
    """Return one of our replies, once for all its pages; notices and panels are no part of a talk.

    It counts as written by those who wrote what it answered. A reply to a command begins a chain
    without the question, which is taken from what is known of the reply.
    """
    message_id = str(message.id)
    reply = await bot.world.database.run(lambda db: db.replies.of_message(message_id))
    if reply is None or reply.id in seen:
        return []
    seen.add(reply.id)
    authors = await bot.world.database.run(lambda db: db.replies.authors(reply.id))
    try:
        known = await bot.world.chat.recall(reply.id)
    except NotFound:
        text = _NOTICE_LINE.sub("", message.content).strip()
        return [_Line("assistant", text, message.id, keepable=False)] if text else []
    own = _Line("assistant", known.text, message.id, "", authors, reply.kept)
    asked = [one.content for one in known.prompt if one.role == "user"][-1:]
    if not asked or not first or message.interaction_metadata is None:
        return [own]
    sources = (await bot.world.chat.asked(reply.id)).sources
    return [_Line("user", asked[0], message.id, "", authors, reply.kept, sources), own]


def spoken(bot: ThumbtuneBot, message: discord.Message) -> str:
    """Return a person's text: mentions as names, an address to the bot at either end taken off."""
    text = message.content
    if bot.user is not None:
        address = rf"<@!?{bot.user.id}>"
        text = re.sub(rf"^\s*{address}[\s,:]*|[\s,]*{address}\s*$", "", text)
        text = re.sub(address, plain_name(bot.user.display_name), text)
    names: dict[int, Any] = {user.id: user for user in message.mentions}
    return re.sub(r"<@!?(\d+)>", lambda match: _name(names, match), text).strip()


def _name(names: dict[int, Any], match: re.Match[str]) -> str:
    user = names.get(int(match[1]))
    return f"@{plain_name(user.display_name)}" if user else match[0]
