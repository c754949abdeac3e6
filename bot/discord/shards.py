"""The shards of one bot: which of them are connected, and how they come in one after another.

Owns what discord.py does not keep: which shards are ready now, and a shard's servers as its last
READY named them. Knows no world and no feature.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Any

from discord.state import AutoShardedConnectionState

from core.shares import ShardShare

log = logging.getLogger(__name__)
IDENTIFY_GAP_S = 5.0
"""How far apart two shards may identify, by the least that Discord allows any bot."""


class Shards:
    """Which of a bot's shards are ready. All methods run on the event loop."""

    def __init__(self, share: ShardShare) -> None:
        self.share = share
        self.ready: set[int] = set()
        self._first = asyncio.Event()

    def __str__(self) -> str:
        """Say how many are ready, and of which group; nothing of a bot that is not divided."""
        if self.share.shards == 1:
            return ""
        said = f"{len(self.ready)} of {len(self.share.ids)} shards"
        return f"{said} of {self.share.group}" if self.share.group.total > 1 else said

    def came(self, shard_id: int) -> None:
        """Note that a shard is ready, or has its session back."""
        self.ready.add(shard_id)
        self._first.set()

    def went(self, shard_id: int) -> None:
        """Note that a shard lost its connection; discord.py connects it again by itself."""
        if shard_id in self.ready:
            log.info("shard %d lost its connection; %d others go on", shard_id, len(self.ready) - 1)
        self.ready.discard(shard_id)

    async def first_ready(self) -> None:
        """Wait until a shard was ready; the others come in after it."""
        await self._first.wait()

    async def gap(self) -> None:
        """Wait before a shard identifies; longer by chance where other processes do it too."""
        share = self.share
        spread = random.random() if share.group.total > 1 else 0.0
        await asyncio.sleep(IDENTIFY_GAP_S * (1 + spread))


class ShardState(AutoShardedConnectionState[Any]):
    """discord.py's state, which also lets go of servers that a shard's READY no longer names.

    The library's own forgets everything at READY where there is one connection, and nothing where
    there may be several; a server left during a lost session would stay for ever.
    """

    def parse_ready(self, data: Any) -> None:
        """Take the servers that a shard has now for those it has."""
        data.setdefault("shard", [0, 1])  # an API without shards says nothing of them
        named = {int(guild["id"]) for guild in data["guilds"]}
        for guild in list(self.guilds):
            if guild.shard_id == data["shard"][0] and guild.id not in named:
                self._remove_guild(guild)
        super().parse_ready(data)
