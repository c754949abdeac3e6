"""Which servers a bot process serves: its share of the shards, and of the servers behind them.

Invariant: a server's group follows from its id and the number of groups alone, since the number of
shards is a multiple of it (decision 021). More shards move no server; more groups, by a multiple,
only split groups. Knows Discord's ids and no Discord.
"""

from __future__ import annotations

from dataclasses import dataclass

_TIMESTAMP_SHIFT = 22
"""The bits of an id below its time; Discord deals servers out by the time alone:
https://docs.discord.com/developers/events/gateway#sharding-sharding-formula"""


@dataclass(frozen=True, slots=True)
class Group:
    """Group `number` of `total`, counted from 0: one process, one data directory, one database."""

    number: int = 0
    total: int = 1

    def __str__(self) -> str:
        return f"group {self.number} of {self.total}"

    def owns(self, guild_id: int | None) -> bool:
        """Say whether a server is this group's; None stands for direct messages: group 0's."""
        return group_of(guild_id, self.total) == self.number

    def splits(self, wider: Group) -> bool:
        """Say whether every server of this group is one of the wider group's too."""
        return self.total % wider.total == 0 and self.number % wider.total == wider.number


@dataclass(frozen=True, slots=True)
class ShardShare:
    """The shards of the whole bot that one process runs; `shards` is a multiple of the groups."""

    group: Group = Group()
    shards: int = 1

    @property
    def ids(self) -> tuple[int, ...]:
        """The shards that this process runs, in order."""
        return tuple(range(self.group.number, self.shards, self.group.total))

    def shard_of(self, guild_id: int | None) -> int:
        """Return the shard that a server's events come on; direct messages come on shard 0."""
        return group_of(guild_id, self.shards)


def group_of(guild_id: int | None, total: int) -> int:
    """Return which of `total` groups, or shards, a server falls to; None (direct messages) to 0."""
    return 0 if guild_id is None else (guild_id >> _TIMESTAMP_SHIFT) % total


def whole_shards(wanted: int, groups: int) -> int:
    """Return the smallest multiple of the groups that is no less than the shards wanted."""
    return -(-max(1, wanted) // groups) * groups
