"""Which settings hold where: the channel's before the server's before the operator's.

Reads are cached; every change goes through here. Knows the database's `places` and no commands.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import discord

from core.generation import Sampling
from core.places import ChannelPlace, ServerPlace
from core.settings import Settings
from storage.aio import AsyncDatabase

SHARED_SCOPE = "discord"
DM_SCOPE = "discord-dm"
PLATFORM = "discord"
CACHED = 10_000
"""Rows held in memory: threads and direct channels come without end."""


@dataclass(frozen=True, slots=True)
class Spot:
    """Where something is said: ids as Discord gives them; `guild_id` None in direct messages.

    `channel_id` is the channel whose settings hold: a thread's parent. `thread_id` is the thread,
    or None.
    """

    guild_id: int | None
    channel_id: int
    thread_id: int | None = None

    @property
    def server_key(self) -> str:
        """The key of the server's row in `places`, and the prefix of all that happens there."""
        return f"{PLATFORM}/{self.guild_id or 'dm'}"

    @property
    def channel_key(self) -> str:
        """The key of the channel's row in `places`, and the prefix of its conversations."""
        return f"{self.server_key}/{self.channel_id}"

    @property
    def reset_key(self) -> str:
        """The key of the row that says where the context begins: the thread's or the channel's."""
        return f"{self.channel_key}/{self.thread_id}" if self.thread_id else self.channel_key

    def conversation_key(self, root_message_id: int) -> str:
        """The platform key of a conversation: a thread, a direct channel, or a chain of replies."""
        if self.thread_id:
            return f"{self.channel_key}/{self.thread_id}"
        return (
            self.channel_key if self.guild_id is None else f"{self.channel_key}/{root_message_id}"
        )


@dataclass(frozen=True, slots=True)
class Style:
    """How replies are written in one spot; `persona` '' leaves the model's own."""

    persona: str
    sampling: Sampling


def spot_of(channel: Any) -> Spot:
    """Return the spot of any channel or thread that messages come from."""
    guild = getattr(channel, "guild", None)
    guild_id = guild.id if guild else getattr(channel, "guild_id", None)
    if isinstance(channel, discord.Thread):
        return Spot(guild_id, channel.parent_id, channel.id)
    return Spot(guild_id, channel.id)


def server_scope(guild_id: int | None) -> str:
    """Return the scope of a server with an adapter of its own, or of direct messages (None)."""
    return DM_SCOPE if guild_id is None else f"{PLATFORM}-{guild_id}"


def guild_of(key: str) -> int | None:
    """Return the server that a place's key lies in; None for direct messages."""
    name = key.split("/")[1] if "/" in key else ""
    return int(name) if name.isdecimal() else None


class Places:
    """Settings of servers and channels. All methods run on the event loop."""

    def __init__(self, database: AsyncDatabase, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._cache: dict[str, dict[str, Any]] = {}

    # -- reading

    def scope(self, guild_id: int | None) -> str:
        """Return the scope whose adapter speaks on a server, or in direct messages (None)."""
        if self._settings.discord.scopes == "shared":
            return SHARED_SCOPE
        return server_scope(guild_id)

    async def server(self, spot: Spot) -> ServerPlace:
        """Return the settings of the spot's server."""
        return ServerPlace.model_validate(await self._read(spot.server_key))

    async def channel(self, spot: Spot) -> ChannelPlace:
        """Return the settings of the spot's channel."""
        return ChannelPlace.model_validate(await self._read(spot.channel_key))

    async def style(self, spot: Spot) -> Style:
        """Return persona and sampling for a reply in this spot."""
        server, channel = await self.server(spot), await self.channel(spot)
        chat = self._settings.chat
        sampling = Sampling(chat.temperature, chat.top_p, chat.top_k, chat.max_tokens)
        for place in (server, channel):
            if place.temperature is not None:
                sampling = replace(sampling, temperature=place.temperature)
            if place.max_tokens is not None:
                sampling = replace(sampling, max_tokens=place.max_tokens)
        personas = [place.persona for place in (channel, server) if place.persona is not None]
        return Style(personas[0] if personas else chat.persona, sampling)

    async def reset_after(self, spot: Spot) -> int:
        """Return the id of the message after which the context begins here; 0 is the beginning."""
        row = await self._read(spot.reset_key)
        return int(row.get("reset_after", 0))

    async def may_keep(self, spot: Spot, author_ids: tuple[str, ...]) -> bool:
        """Say whether what these people wrote here may be stored and learnt from.

        All three are needed: the operator's permission, the server's switch, each author's consent.
        """
        if not self._settings.discord.training_permission.strip() or not author_ids:
            return False
        if not (await self.server(spot)).training:
            return False
        people = await self._database.run(lambda db: [db.people.get(one) for one in author_ids])
        return all(person.consent == "given" for person in people)

    # -- writing

    async def reset(self, spot: Spot, message_id: int, actor: str) -> None:
        """Let the context begin anew after this message, in this channel or thread alone."""
        row = {**await self._read(spot.reset_key), "reset_after": message_id}
        await self._write(spot.reset_key, row, actor)

    async def change_server(self, spot: Spot, actor: str, **changes: Any) -> ServerPlace:
        """Change settings of the server; None takes one back. Raises ValueError (pydantic)."""
        changed = ServerPlace.model_validate(_merged(await self._read(spot.server_key), changes))
        await self._write(spot.server_key, changed.model_dump(exclude_defaults=True), actor)
        scope = self.scope(spot.guild_id)
        if "training" in changes and scope != SHARED_SCOPE:
            await self._database.run(lambda db: db.scopes.ensure(scope, training_enabled=False))
            await self._database.run(
                lambda db: db.scopes.set_training(scope, changed.training, actor)
            )
        return changed

    async def change_channel(self, spot: Spot, actor: str, **changes: Any) -> ChannelPlace:
        """Change settings of the channel; None takes one back. Raises ValueError (pydantic)."""
        changed = ChannelPlace.model_validate(_merged(await self._read(spot.channel_key), changes))
        await self._write(spot.channel_key, changed.model_dump(exclude_defaults=True), actor)
        return changed

    async def remove(self, key: str) -> None:
        """Delete the settings of a server with its channels, or of a channel."""
        await self._database.run(lambda db: db.places.remove(key))
        self._cache = {
            known: row
            for known, row in self._cache.items()
            if known != key and not known.startswith(f"{key}/")
        }

    async def _read(self, key: str) -> dict[str, Any]:
        if key not in self._cache:
            row = await self._database.run(lambda db: db.places.get(key))
            while len(self._cache) >= CACHED:
                del self._cache[next(iter(self._cache))]
            return self._cache.setdefault(key, row)
        return self._cache[key]

    async def _write(self, key: str, row: dict[str, Any], actor: str) -> None:
        await self._database.run(lambda db: db.places.put(key, row, actor=actor))
        self._cache[key] = row


def _merged(row: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Put changes over a row; None takes a key back to its default."""
    merged = {**row, **changes}
    return {key: value for key, value in merged.items() if value is not None}
