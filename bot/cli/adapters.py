"""`thumbtune adapters`: versions, which one speaks, and how to change that."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from bot.adapters import promote, roll_back, verify
from bot.canary import TrialStanding, standing
from bot.cli.common import (
    DEFAULT_SCOPE,
    ConfigOption,
    DataDirOption,
    JsonOption,
    Output,
    ScopeOption,
    run,
    settings_or_exit,
)
from bot.cli.tables import show_adapters
from bot.world import open_database
from core.errors import InvalidInput
from core.sections import CanarySettings
from storage.database import Database

app = typer.Typer(
    help="Adapters: list, show, promote, rollback, verify, export.", no_args_is_help=True
)
NameArgument = Annotated[str, typer.Argument(help="Such as console@v3, or base.", metavar="NAME")]


@app.command("list")
def list_adapters(
    scope: Annotated[str | None, typer.Option(help="Only this scope's adapters.")] = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """List adapter versions and who speaks in each scope."""
    settings = settings_or_exit(config, data_dir)
    output = Output(as_json)

    async def main() -> None:
        async with open_database(settings) as database:
            scopes = await database.run(lambda db: db.scopes.list())
            found = await database.run(lambda db: db.adapters.list(scope))
            shown = [item for item in scopes if scope in (None, item.name)]
            names = [item.name for item in shown]
            trials = await database.run(lambda db: _trials(db, names, settings.canary))
        show_adapters(output.console, found, shown, trials)
        output.result({"scopes": shown, "adapters": found, "trials": trials})

    run(main)


@app.command("show")
def show_adapter(
    name: NameArgument,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one adapter and what was done with it."""
    settings = settings_or_exit(config, data_dir)
    output = Output(as_json)

    async def main() -> None:
        async with open_database(settings) as database:
            found = await database.run(lambda db: db.adapters.get(name))
            events = await database.run(lambda db: db.events.list(limit=50, subject=name))
            trials = await database.run(lambda db: _trials(db, [found.scope], settings.canary))
        trials = [stand for stand in trials if stand.trial.candidate == name]
        show_adapters(output.console, [found], [], trials)
        for event in events:
            output.say(f"  {event.at[:19]}  {event.actor}: {event.action}")
        output.result({"adapter": found, "events": events, "trials": trials})

    run(main)


@app.command("promote")
def promote_adapter(
    name: NameArgument,
    scope: Annotated[str | None, typer.Option(help="Needed for base only.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Also one the gate refused.")] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let an adapter (or base) speak; a running bot follows within a second."""
    settings = settings_or_exit(config, data_dir)
    output = Output(as_json)

    async def main() -> None:
        async with open_database(settings) as database:
            now = await promote(
                database, settings.data_dir, name, scope=scope, actor="cli", force=force
            )
        output.say(
            f"{now.name}: {now.live or 'base'} speaks now, {now.previous or 'base'} stands by"
        )
        output.result(now)

    run(main)


@app.command("rollback")
def roll_back_adapter(
    scope: ScopeOption = DEFAULT_SCOPE,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a trial, else go back to what spoke before; a running bot follows within a second."""
    settings = settings_or_exit(config, data_dir)
    output = Output(as_json)

    async def main() -> None:
        async with open_database(settings) as database:
            now = await roll_back(database, settings.data_dir, scope, actor="cli")
        output.say(f"{now.name}: {now.live or 'base'} speaks again")
        output.result(now)

    run(main)


@app.command("verify")
def verify_adapter(
    name: NameArgument,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every byte of an adapter against its manifest and the database."""
    settings = settings_or_exit(config, data_dir)
    output = Output(as_json)

    async def main() -> None:
        async with open_database(settings) as database:
            record = await database.run(lambda db: db.adapters.get(name))
        verify(record, settings.data_dir)
        output.say(f"{name}: whole and unaltered, sha256 {record.sha256}")
        output.result({"adapter": name, "ok": True, "sha256": record.sha256})

    run(main)


@app.command("export")
def export_adapter(
    name: NameArgument,
    out: Annotated[Path, typer.Argument(help="A directory that does not exist yet.")],
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy an adapter out as a PEFT directory that anyone can load."""
    settings = settings_or_exit(config, data_dir)
    output = Output(as_json)

    async def main() -> None:
        async with open_database(settings) as database:
            record = await database.run(lambda db: db.adapters.get(name))
        verify(record, settings.data_dir)
        if out.exists():
            raise InvalidInput(f"{out} exists already; name a directory that does not")
        shutil.copytree(settings.data_dir / record.directory, out)
        output.say(
            f"{name} copied to {out}; load it with "
            f"peft.PeftModel.from_pretrained(base, {str(out)!r})"
        )
        output.result({"adapter": name, "directory": out})

    run(main)


def _trials(db: Database, scopes: list[str], settings: CanarySettings) -> list[TrialStanding]:
    """Return where the trials of these scopes stand."""
    return [stand for scope in scopes if (stand := standing(db, scope, settings))]
