"""`thumbtune servers`: which Discord servers this database holds, and whose they are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bot.cli.common import (
    ConfigOption,
    DataDirOption,
    JsonOption,
    Output,
    run,
    settings_or_exit,
)
from bot.cli.tables import show_servers
from bot.privacy import stop_runs
from bot.world import open_database
from core.errors import InvalidInput
from core.settings import Settings
from core.shares import Group, ShardShare, whole_shards
from storage.aio import AsyncDatabase
from storage.copies import BACKUP_DIRECTORY

if TYPE_CHECKING:
    from bot.discord.servers import StoredServer

app = typer.Typer(
    help="Discord servers: which are kept here, which bot process serves them.",
    no_args_is_help=True,
)


@app.command("list")
def list_servers(
    groups: Annotated[
        int, typer.Option(min=0, help="Show the group each would be in of so many; 0: as it is.")
    ] = 0,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the servers in this database with shard and group."""
    from bot.discord.servers import stored_servers  # half a second other commands need not spend

    settings = settings_or_exit(config, data_dir)
    output = Output(as_json)

    async def main() -> None:
        async with open_database(settings) as database:
            found = await database.run(stored_servers)
            held = await database.run(lambda db: db.groups.claimed())
        share = _as_asked(held or settings.discord.share(1), groups)
        if not as_json:
            show_servers(output.console, found, share)
            output.say(f"this database: {held.group if held else 'not served on Discord yet'}")
        output.result({"claimed": held, "servers": [_row(one, share) for one in found]})

    run(main)


@app.command("keep")
def keep_servers(
    group: Annotated[int, typer.Option(min=0, help="The group whose servers stay.")],
    groups: Annotated[int, typer.Option(min=1, help="How many groups there are.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a copy of a data directory one group's: remove what is kept of every other server.

    A backup is made before. Of the other servers everything goes from this copy, so each group
    needs a copy of its own first.
    """
    from bot.discord.lock import only_server
    from bot.discord.servers import leaving

    settings = settings_or_exit(config, data_dir)
    output = Output(as_json)

    async def main() -> None:
        wanted = _group(group, groups)
        with only_server(settings.data_dir):
            async with open_database(settings) as database:
                going = await database.run(lambda db: leaving(db, wanted))
                question = f"Remove {len(going)} servers that are not of {wanted} from this copy?"
                if going and not yes:
                    typer.confirm(question, abort=True, err=True)
                backup = await _back_up(settings, database, wanted)
                removed = await _keep(settings, database, wanted)
        output.say(f"{settings.data_dir} is {wanted} now; {len(removed)} servers removed")
        output.say(f"set discord.group = {group} and discord.groups = {groups}; before: {backup}")
        output.result({"group": wanted, "removed": removed, "backup": backup})

    run(main)


async def _keep(
    settings: Settings, database: AsyncDatabase, group: Group
) -> Sequence[StoredServer]:
    """Remove the other groups' servers, and stop what still learns from them."""
    from bot.discord.servers import keep_group

    removed = await database.run(lambda db: keep_group(db, group, actor="cli"))
    scopes = {one.scope for one in removed}
    await stop_runs(
        database,
        settings.data_dir,
        lambda db: [item for item in db.runs.unfinished() if item.scope in scopes],
        "cli",
    )
    return removed


async def _back_up(settings: Settings, database: AsyncDatabase, group: Group) -> Path:
    name = f"before-group-{group.number}-of-{group.total}.{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}.db"
    target = settings.data_dir / BACKUP_DIRECTORY / name
    return await database.run(lambda db: db.backup(target))


def _group(number: int, total: int) -> Group:
    if number >= total:
        raise InvalidInput(
            f"group {number}: there are {total} groups, counted from 0; name one of 0 to "
            f"{total - 1}"
        )
    return Group(number, total)


def _as_asked(share: ShardShare, groups: int) -> ShardShare:
    """Return the share with another number of groups, where one was named."""
    if not groups:
        return share
    return ShardShare(Group(0, groups), whole_shards(share.shards, groups))


def _row(server: StoredServer, share: ShardShare) -> dict[str, object]:
    shard = share.shard_of(server.guild_id)
    return {
        "id": None if server.guild_id is None else str(server.guild_id),
        "name": server.name,
        "scope": server.scope,
        "conversations": server.conversations,
        "shard": shard,
        "group": shard % share.group.total,
    }
