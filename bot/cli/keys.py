"""`thumbtune keys`: who may speak to the HTTP API."""

from __future__ import annotations

from typing import Annotated

import typer

from bot.cli.common import (
    ConfigOption,
    DataDirOption,
    JsonOption,
    Output,
    run,
    settings_or_exit,
)
from bot.keys import DEFAULT_API_SCOPE, make_key
from bot.world import open_database
from core.records import ApiKey

app = typer.Typer(help="Keys of the HTTP API: new, list, revoke.", no_args_is_help=True)
NameArgument = Annotated[str, typer.Argument(help="Whom it is for.", metavar="NAME")]


@app.command("new")
def new_key(
    name: NameArgument,
    admin: Annotated[
        bool, typer.Option("--admin", help="May also load and unload adapters.")
    ] = False,
    scope: Annotated[
        str, typer.Option(help="Whose adapters it speaks with, and whom its votes teach.")
    ] = DEFAULT_API_SCOPE,
    consented: Annotated[
        bool,
        typer.Option("--consented", help="You state: whoever uses it agreed to be learnt from."),
    ] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it, once; only its hash is stored. A running server takes it at once."""
    settings = settings_or_exit(config, data_dir)
    output = Output(as_json)

    async def main() -> None:
        async with open_database(settings) as database:
            made = await make_key(
                database,
                name,
                role="admin" if admin else "user",
                scope=scope,
                consented=consented,
                actor="cli",
            )
        if not as_json:
            output.say(f"{_line(made.key)}. Keep it: it is shown this once.")
            output.say(made.secret)
        output.result(made)

    run(main)


@app.command("list")
def list_keys(
    config: ConfigOption = None, data_dir: DataDirOption = None, as_json: JsonOption = False
) -> None:
    """List the keys, without the keys themselves."""
    settings = settings_or_exit(config, data_dir)
    output = Output(as_json)

    async def main() -> None:
        async with open_database(settings) as database:
            found = await database.run(lambda db: db.keys.list())
        for key in found:
            output.say(_line(key))
        if not found:
            output.say("no keys yet; make one with `thumbtune keys new NAME`")
        output.result({"keys": found})

    run(main)


@app.command("revoke")
def revoke_key(
    name: NameArgument,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Refuse a key from now on; a running server does so at once."""
    settings = settings_or_exit(config, data_dir)
    output = Output(as_json)

    async def main() -> None:
        async with open_database(settings) as database:
            gone = await database.run(lambda db: db.keys.revoke(name, actor="cli"))
        output.say(_line(gone))
        output.result(gone)

    run(main)


def _line(key: ApiKey) -> str:
    state = f"revoked {key.revoked_at[:19]}" if key.revoked_at else f"made {key.created_at[:19]}"
    consent = ", consent stated" if key.consented else ""
    return f"key {key.name}: {key.role}, scope {key.scope}{consent}, {state}"
