"""A town on the double with its people: what they do there, and what each of them can read.

Knows nothing of what a reply ought to say, and starts no bot.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.bot.discord.story_child import Operator
from tests.discord_double import Double
from tests.discord_double.drafts import leaves
from tests.discord_double.interactions import Interaction
from tests.discord_double.records import Channel, Guild, Json, Message, User


@dataclass
class Story:
    """A server with its people, who runs the bot, and what each of them has said of which reply."""

    double: Double
    operator: Operator
    town: Guild
    square: Channel
    people: dict[str, User]
    said: set[tuple[str, str, str]] = field(default_factory=set)

    @property
    def scope(self) -> str:
        """The name under which this server's votes train its own adapter."""
        return f"discord-{self.town.id}"

    async def use(self, name: str, command: str, **options: object) -> Interaction:
        """Let somebody use a command, and wait for an answer that is no spinner."""
        used = await self.double.slash(self.people[name], self.square, command, **options)
        return await used.until_shown(timeout_s=30)

    async def ask(self, name: str, text: str) -> Message:
        """Let somebody ask in the square; return the bot's reply once it is whole."""
        asked = await self.double.say(self.people[name], self.square, text, mention_bot=True)
        await until(lambda: any("up" in buttons(one) for one in self.answers(asked)), 60)
        (reply,) = self.answers(asked)
        return reply

    def answers(self, asked: Message) -> list[Message]:
        """Return the messages that answer one."""
        return [one for one in self.double.messages(self.square) if one.reply_to is asked]

    async def press(self, name: str, message: Message, what: str) -> Interaction:
        """Let somebody press a button under a reply, and wait for an answer that is no spinner."""
        pressed = await self.double.press(self.people[name], message, buttons(message)[what])
        return await pressed.until_shown(timeout_s=30)

    def note(self, name: str, reply: Message, kind: str) -> None:
        """Remember what somebody said of a reply."""
        self.said.add((reply_id(reply), str(self.people[name].id), kind))


def told(interaction: Interaction) -> str:
    """Return what the one who asked, and nobody else, was told."""
    assert interaction.response is not None and interaction.response.ephemeral
    return interaction.response.content + text_of(interaction.response.embeds)


def text_of(embeds: list[Json]) -> str:
    """Return all that embeds say: title, description and fields, a line each."""
    lines: list[str] = []
    for embed in embeds:
        lines += [embed.get("title") or "", embed.get("description") or ""]
        lines += [f"{one['name']}: {one['value']}" for one in embed.get("fields") or []]
    return "\n".join(lines)


def watched(panel: Message, bars: list[str]) -> str:
    """Return what a run's message says now, and add its bar to those seen."""
    text = text_of(panel.embeds)
    bars.append(re.sub(r"(?s).*?\n(.*?%).*", r"\1", text))
    return text


def buttons(message: Message) -> dict[str, str]:
    """Return the custom ids of the buttons under a message by what they do."""
    ids = [str(leaf.get("custom_id", "")) for leaf in leaves(message.components)]
    return {one.split(":")[1]: one for one in ids if one.startswith("tt:")}


def reply_id(reply: Message) -> str:
    """Return the id of the reply that a message shows."""
    return buttons(reply)["up"].rsplit(":", 1)[-1]


def spoken(reply: Message) -> str:
    """Return the words of a reply without the notices under it."""
    return " ".join(re.sub(r"(?m)^-# .*$", "", reply.content).split())


async def until(true: Callable[[], bool], seconds: float) -> None:
    """Wait until something holds; fail after some time."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.05)
