"""The servers that a database holds: which they are, whose they may be, and what goes with one.

Invariant: a database is served by the group that it belongs to and by no other, since a bot takes a
server it does not see for one that it left, and deletes what was kept of it. All functions run on
the database's thread; none knows a connection to Discord.
"""

from __future__ import annotations

from dataclasses import dataclass

from bot.discord.places import PLATFORM, SHARED_SCOPE, Spot, guild_of, server_scope
from core.errors import ConfigError, InvalidInput
from core.places import ServerPlace
from core.shares import Group, ShardShare, whole_shards
from storage.database import Database

GUIDE = 'docs/discord.md, "More than one process"'


@dataclass(frozen=True, slots=True)
class StoredServer:
    """A server the database knows; `guild_id` None is the space of all direct messages."""

    guild_id: int | None
    name: str
    scope: str
    conversations: int


# -- reading


def known_servers(db: Database) -> set[int | None]:
    """Return the servers of which anything is kept: settings or conversations; None for direct
    messages.
    """
    return set(_conversations(db))


def stored_servers(db: Database) -> list[StoredServer]:
    """Return every server of which anything is kept by id, then the direct messages."""
    counts = _conversations(db)
    found = [_stored(db, guild_id, count) for guild_id, count in counts.items()]
    return sorted(found, key=lambda one: (one.guild_id is None, one.guild_id or 0))


def strangers(db: Database, group: Group) -> list[int | None]:
    """Return the servers in this database that are no servers of this group."""
    if group.total == 1:
        return []
    return [guild_id for guild_id in known_servers(db) if not group.owns(guild_id)]


def check(db: Database, group: Group) -> None:
    """Raise ConfigError, with what to do, unless this group may serve the database's servers."""
    held = db.groups.claimed()
    if held and held.group != group:
        raise ConfigError([_another_group(db, held.group, group)])
    foreign = strangers(db, group)
    if foreign:
        raise ConfigError([_not_ours(db, group, len(foreign))])


def leaving(db: Database, group: Group) -> list[StoredServer]:
    """Return the servers that would go if only this group's were kept.

    Raises InvalidInput where the database cannot hold all of the group's servers.
    """
    held = db.groups.claimed()
    if held and not group.splits(held.group):
        raise InvalidInput(
            f"{db.path} holds {held.group}, of which {group} is no part: groups are split, never "
            f"joined or dealt anew; name a multiple of {held.group.total} groups, and a group that "
            f"is {held.group.number} modulo {held.group.total} ({GUIDE})"
        )
    return [one for one in stored_servers(db) if not group.owns(one.guild_id)]


# -- writing


def claim(db: Database, share: ShardShare) -> None:
    """Say that this process serves the database's servers. Raises ConfigError as `check` does."""
    with db.transaction():
        check(db, share.group)
        db.groups.claim(share, actor="discord")


def keep_group(db: Database, group: Group, *, actor: str) -> list[StoredServer]:
    """Remove every server but this group's, and make the database this group's; return them.

    Raises InvalidInput as `leaving` does.
    """
    with db.transaction():
        removed = leaving(db, group)
        for server in removed:
            forget_server(db, server.guild_id, actor=actor)
        held = db.groups.claimed()
        shards = whole_shards(held.shards if held else 1, group.total)
        db.groups.claim(ShardShare(group, shards), actor=actor)
    return removed


def forget_server(db: Database, guild_id: int | None, *, actor: str) -> str | None:
    """Remove all that is kept of a server, and let the base speak; return what spoke there."""
    forget_place(db, guild_id, Spot(guild_id, 0).server_key, actor=actor)
    db.places.remove(Spot(guild_id, 0).server_key, actor=actor)
    return _base_again(db, server_scope(guild_id), actor=actor)


def forget_place(db: Database, guild_id: int | None, key: str, *, actor: str) -> frozenset[str]:
    """Remove a place's conversations, whichever way adapters are shared now or were before; return
    their ids.
    """
    gone = db.conversations.under(key)
    for scope in (server_scope(guild_id), SHARED_SCOPE):
        db.conversations.remove(scope, key, actor=actor)
    return gone


def _base_again(db: Database, scope: str, *, actor: str) -> str | None:
    """Let the base speak in the scope of a server that is gone, and nothing train there any more;
    return what spoke there.
    """
    row = next((one for one in db.scopes.list() if one.name == scope), None)
    if row is None:
        return None
    if row.training_enabled:
        db.scopes.set_training(scope, False, actor)
    db.adapters.end_trial(scope, "undecided", actor=actor, why="the server is no longer here")
    if row.live:
        db.adapters.promote_base(scope, actor=actor)
    return row.live


def _conversations(db: Database) -> dict[int | None, int]:
    """Count the conversations of each server of which anything is kept."""
    counts = dict.fromkeys(db.places.list(PLATFORM), 0) | db.conversations.by_place(PLATFORM)
    found: dict[int | None, int] = {}
    for key, count in counts.items():
        if "/" not in key:
            continue
        found[guild_of(key)] = found.get(guild_of(key), 0) + count
    return found


def _stored(db: Database, guild_id: int | None, conversations: int) -> StoredServer:
    place = ServerPlace.model_validate(db.places.get(Spot(guild_id, 0).server_key))
    name = place.name or ("direct messages" if guild_id is None else "")
    return StoredServer(guild_id, name, server_scope(guild_id), conversations)


def _another_group(db: Database, held: Group, asked: Group) -> str:
    way = (
        "to split it, stop the bot, copy the data directory for each new group, and run "
        f"thumbtune servers keep --group {asked.number} --groups {asked.total} on this group's copy"
        if asked.splits(held)
        else "set discord.group and discord.groups back, or name this group's own data directory"
    )
    return (
        f"{db.path} holds the servers of {held}, but discord.group and discord.groups say {asked}; "
        f"serving it would delete what was learnt on the other servers. So {way} ({GUIDE})"
    )


def _not_ours(db: Database, asked: Group, count: int) -> str:
    return (
        f"{db.path} holds {count} servers that are not of {asked}; serving it would delete what "
        "was learnt there. Copy the data directory for each group and run thumbtune servers keep "
        f"--group {asked.number} --groups {asked.total} on this group's copy ({GUIDE})"
    )
