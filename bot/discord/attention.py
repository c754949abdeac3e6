"""Which messages are meant for the bot: when it is spoken to, and where an admin lets it listen."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import discord

from bot.discord.places import spot_of

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot


async def is_addressed(bot: ThumbtuneBot, message: discord.Message, chance: random.Random) -> bool:
    """Say whether to answer a person's message."""
    if message.guild is None:
        return True
    place = await bot.places.channel(spot_of(message.channel))
    if place.listen == "off":
        return False
    if is_spoken_to(bot, message):
        return True
    if place.listen == "all":
        return bool(message.content or message.attachments or message.stickers)
    if await _is_own_thread(bot, message):
        return bool(message.content)
    return (
        place.listen == "join" and bool(message.content) and not chance.randrange(place.join_one_in)
    )


def is_spoken_to(bot: ThumbtuneBot, message: discord.Message) -> bool:
    """Say whether a message mentions the bot, its role, or replies to one of its messages."""
    if bot.user is None:
        return False
    if any(user.id == bot.user.id for user in message.mentions):
        return True
    if any(_bot_of(role) == bot.user.id for role in message.role_mentions):
        return True
    replied = message.reference.resolved if message.reference else None
    return isinstance(replied, discord.Message) and replied.author.id == bot.user.id


async def _is_own_thread(bot: ThumbtuneBot, message: discord.Message) -> bool:
    """Say whether the message is in a thread that grew from one of the bot's replies."""
    thread = message.channel
    if not isinstance(thread, discord.Thread) or bot.user is None:
        return False
    if thread.owner_id == bot.user.id:
        return True
    starter = str(thread.id)  # a thread that grew from a message has that message's id
    return await bot.world.database.run(lambda db: db.replies.of_message(starter)) is not None


def _bot_of(role: discord.Role) -> int | None:
    return role.tags.bot_id if role.tags else None
