"""`thumbtune feedback`: import votes made elsewhere, export ours, count them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

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
from bot.exchange import export_raw, export_trl, import_file
from bot.world import open_database

app = typer.Typer(help="Feedback: import, export, stats.", no_args_is_help=True)


class Format(StrEnum):
    """What an export holds: our own lines, or TRL's conversational formats."""

    raw = "raw"
    kto = "kto"
    dpo = "dpo"
    sft = "sft"


TRL_FORM: dict[Format, Literal["kto", "dpo", "sft"]] = {
    Format.kto: "kto",
    Format.dpo: "dpo",
    Format.sft: "sft",
}


@app.command("import")
def import_feedback(
    file: Annotated[
        Path, typer.Argument(help="One JSON object a line; see docs/feedback-format.md.")
    ],
    scope: ScopeOption = DEFAULT_SCOPE,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad lines out.")] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import feedback made elsewhere. A bad line refuses the whole file, unless --skip-bad.

    By importing you state that you may train on these people's words.
    """
    settings = settings_or_exit(config, data_dir)
    output = Output(as_json)

    async def main() -> None:
        async with open_database(settings) as database:
            with output.console.status(f"importing {file}"):
                done = await database.run(
                    lambda db: import_file(db, file, default_scope=scope, skip_bad=skip_bad)
                )
        for reason in done.skipped[:20]:
            output.say(f"  left out: {reason}")
        output.say(
            f"{done.added} added, {done.unchanged} were there already, {len(done.skipped)} left out"
        )
        output.result({"added": done.added, "unchanged": done.unchanged, "skipped": done.skipped})

    run(main)


@app.command("export")
def export_feedback(
    file: Annotated[Path, typer.Argument(help="The file to write.")],
    form: Annotated[Format, typer.Option("--format", help="raw imports back equal.")] = Format.raw,
    scope: Annotated[str | None, typer.Option(help="Only this scope's feedback.")] = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export feedback, as our own lines or for TRL (consented rows only)."""
    settings = settings_or_exit(config, data_dir)
    output = Output(as_json)

    async def main() -> None:
        async with open_database(settings) as database:
            if form is Format.raw:
                count = await database.run(lambda db: export_raw(db, file, scope=scope))
            else:
                share = settings.privacy.person_share
                count = await database.run(
                    lambda db: export_trl(db, file, TRL_FORM[form], scope=scope, person_share=share)
                )
        output.say(f"{count} lines written to {file}")
        output.result({"file": file, "format": form.value, "lines": count})

    run(main)


@app.command("stats")
def feedback_stats(
    scope: Annotated[str | None, typer.Option(help="Only this scope's feedback.")] = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count signals, people, and how each adapter is liked."""
    settings = settings_or_exit(config, data_dir)
    output = Output(as_json)

    async def main() -> None:
        async with open_database(settings) as database:
            stats = await database.run(lambda db: db.feedback.stats(scope))
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        for name, value in stats.items():
            table.add_row(name.replace("_", " "), _words(value))
        output.console.print(table)
        output.result(stats)

    run(main)


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_words(item)}" for key, item in value.items()) or "none"
    if isinstance(value, float):
        return f"{value:.3f}"
    return str(value)
