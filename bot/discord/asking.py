"""From what a person said to a question for the model: context, style, and whether it may be kept.

Invariant: a question is kept only where the context rests on nothing else and everybody in it, the
server and the operator agree (`Places.may_keep`); it is looked at again when the reply is stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import discord

from bot.discord.context import Context, build
from bot.discord.places import SHARED_SCOPE, Spot, Style, spot_of
from bot.discord.questions import Question
from bot.discord.text import excerpt, safe
from bot.discord.wording import chat as words
from bot.memory import Ask
from core.generation import Message
from core.records import Person

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot

QUESTION_CHARS = 300


async def question_of(bot: ThumbtuneBot, message: discord.Message) -> Question:
    """Turn a message into a question, with what was said before it."""
    spot = spot_of(message.channel)
    talk = spot.thread_id is not None or spot.guild_id is None
    listening = (await bot.places.channel(spot)).listen
    context = await build(bot, message, whole_channel=talk or listening == "all")
    person = await bot.access.person(message.author.id)
    notice = words.ATTACHMENT_LEFT if message.attachments else ""
    return Question(await ask_of(bot, spot, context, person), f"m{message.id}", notice=notice)


async def ask_of(bot: ThumbtuneBot, spot: Spot, context: Context, person: Person) -> Ask:
    """Turn a context into what the chat is asked; `person` is the one who asks."""
    places = bot.places
    style = await places.style(spot)
    scope = places.scope(spot.guild_id)
    await bot.world.database.run(  # a server's scope begins with training off: an admin decides
        lambda db: db.scopes.ensure(scope, training_enabled=scope == SHARED_SCOPE)
    )
    key = spot.conversation_key(context.root_id)
    conversation = await bot.world.chat.open(scope, person, key)
    kept = context.keepable and await places.may_keep(spot, context.authors)
    return Ask(
        scope=scope,
        conversation_id=conversation,
        prompt=(*_system(style), *context.messages),
        authors=context.authors,
        sources=context.sources,
        sampling=style.sampling,
        kept=kept,
        in_history=False,
    )


def asked_head(text: str) -> str:
    """Return what stands above an answer to a command: the question, which Discord hides."""
    return words.asked(excerpt(safe(text), QUESTION_CHARS))


def _system(style: Style) -> tuple[Message, ...]:
    return (Message("system", style.persona),) if style.persona else ()
