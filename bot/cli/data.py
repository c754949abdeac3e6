"""`thumbtune data`, `backup` and `restore`: people's data, and the database as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from bot.cli.common import (
    ConfigOption,
    DataDirOption,
    JsonOption,
    Output,
    plain,
    run,
    settings_or_exit,
)
from bot.privacy import forget
from bot.world import open_database
from core.errors import InvalidInput, NotFound
from core.files import write_atomic
from core.records import Person
from core.settings import Settings
from storage.aio import AsyncDatabase

app = typer.Typer(
    help="A person's data: export or forget; encrypt the database.", no_args_is_help=True
)
UserOption = Annotated[
    str, typer.Option("--user", help="A person's id, platform:id, platform id or name.")
]


@app.command("export")
def export_person(
    user: UserOption,
    out: Annotated[Path, typer.Option("--out", help="The file to write.")] = Path("person.json"),
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write everything held about a person to a JSON file."""
    settings = settings_or_exit(config, data_dir)
    output = Output(as_json)

    async def main() -> None:
        async with open_database(settings) as database:
            person = await _find(database, user)
            held = await database.run(lambda db: db.people.export(person.id))
        write_atomic(out, json.dumps(held, ensure_ascii=False, indent=2) + "\n")
        output.say(f"{person.platform}:{person.platform_id}: written to {out}")
        output.result({"person": person.id, "file": out})

    run(main)


@app.command("forget")
def forget_person(
    user: UserOption,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove what a person wrote and voted, for good; their adapters are named for retraining."""
    settings = settings_or_exit(config, data_dir)
    output = Output(as_json)

    async def main() -> None:
        async with open_database(settings) as database:
            person = await _find(database, user)
            if not yes:
                typer.confirm(
                    f"Forget {person.platform}:{person.platform_id} for good?", abort=True, err=True
                )
            done = await forget(database, settings.data_dir, person.id, actor="cli")
        for what, count in done.removed.items():
            output.say(f"  {what.replace('_', ' ')}: {count}")
        for run_id in done.stopped_runs:
            output.say(f"  stopped: {run_id}, which was learning from it")
        if done.adapters:
            output.say(f"  to be replaced by the next run: {', '.join(done.adapters)}")
        output.say("Forgotten. Backups made before still hold it: delete them if you must.")
        output.result({"person": person.id, **plain(done)})

    run(main)


@app.command("encrypt")
def encrypt(
    config: ConfigOption = None, data_dir: DataDirOption = None, as_json: JsonOption = False
) -> None:
    """Encrypt a plain database in place with the key in THUMBTUNE_DB_KEY."""
    settings = settings_or_exit(config, data_dir)
    output = Output(as_json)

    async def main() -> None:
        from storage.backup import encrypt_database

        key = _key(settings)
        if key is None:
            raise InvalidInput(
                "no key: put THUMBTUNE_DB_KEY=... into the environment or .env first"
            )
        encrypt_database(settings.database_path, key)
        output.say(f"{settings.database_path} is encrypted now; without the key nobody can read it")
        output.result({"file": settings.database_path, "encrypted": True})

    run(main)


def backup(
    file: Annotated[Path, typer.Argument(help="The backup to write.")],
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the database while it is in use; an encrypted one stays encrypted."""
    settings = settings_or_exit(config, data_dir)
    output = Output(as_json)

    async def main() -> None:
        if file.exists():
            raise InvalidInput(f"{file} exists already; name a file that does not")
        async with open_database(settings) as database:
            await database.run(lambda db: db.backup(file))
        size_bytes = file.stat().st_size
        output.say(f"{file}: {size_bytes / 1e6:.1f} MB")
        output.result({"file": file, "size_bytes": size_bytes})

    run(main)


def restore(
    file: Annotated[Path, typer.Argument(help="The backup to take.")],
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a backup in the database's place; the replaced one is kept beside it."""
    settings = settings_or_exit(config, data_dir)
    output = Output(as_json)

    async def main() -> None:
        from storage.backup import restore as restore_database

        kept = restore_database(file, settings.database_path, _key(settings))
        output.say(f"{file} is the database now" + (f"; the old one is {kept}" if kept else ""))
        output.result({"file": settings.database_path, "kept": kept})

    run(main)


def _key(settings: Settings) -> str | None:
    return settings.db_key.get_secret_value() if settings.db_key else None


async def _find(database: AsyncDatabase, user: str) -> Person:
    found = await database.run(lambda db: db.people.find(user))
    if not found:
        raise NotFound(f"nobody here is called {user!r}; thumbtune feedback stats lists the people")
    if len(found) > 1:
        names = ", ".join(f"{person.platform}:{person.platform_id}" for person in found)
        raise InvalidInput(f"{user!r} may be any of {names}; name one of them")
    return found[0]
