"""`thumbtune runs`: look at training runs, stop one."""

from __future__ import annotations

from typing import Annotated

import typer

from bot.cli.common import ConfigOption, DataDirOption, JsonOption, Output, run, settings_or_exit
from bot.cli.progress import describe
from bot.cli.tables import show_runs
from bot.world import open_database
from core.jobs import read_progress

app = typer.Typer(help="Training runs: list, show, cancel.", no_args_is_help=True)
RunArgument = Annotated[str, typer.Argument(help="The run's id.", metavar="RUN")]


@app.command("list")
def list_runs(
    scope: Annotated[str | None, typer.Option(help="Only this scope's runs.")] = None,
    limit: Annotated[int, typer.Option(help="How many, newest first.", min=1)] = 20,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """List runs, newest first."""
    settings = settings_or_exit(config, data_dir)
    output = Output(as_json)

    async def main() -> None:
        async with open_database(settings) as database:
            found = await database.run(lambda db: db.runs.list(scope, limit=limit))
        show_runs(output.console, found)
        output.result([_short(item) for item in found])

    run(main)


@app.command("show")
def show_run(
    run_id: RunArgument,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one run: what it learnt from, how it went, what the gate said."""
    settings = settings_or_exit(config, data_dir)
    output = Output(as_json)

    async def main() -> None:
        async with open_database(settings) as database:
            found = await database.run(lambda db: db.runs.get(run_id))
        show_runs(output.console, [found])
        progress = read_progress(settings.data_dir / found.directory)
        for name, value in found.counts.items():
            output.say(f"  {name.replace('_', ' ')}: {value}")
        if progress:
            last = progress[-1]
            output.say(f"  last progress: {last.fraction:.0%} of the job, {describe(last)}")
        verdict = (found.report or {}).get("verdict")
        for check in verdict["checks"] if verdict else ():
            mark = "ok" if check["passed"] else "NO"
            output.say(f"  {mark:>2}  {check['figure']}: {check['value']} (bound {check['bound']})")
        output.result(found)

    run(main)


@app.command("cancel")
def cancel_run(
    run_id: RunArgument,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the process that drives a run to stop it."""
    settings = settings_or_exit(config, data_dir)
    output = Output(as_json)

    async def main() -> None:
        async with open_database(settings) as database:
            await database.run(lambda db: db.runs.request_cancel(run_id, "cli"))
        output.say(f"{run_id}: asked to stop; see: thumbtune runs show {run_id}")
        output.result({"run": run_id, "cancel_requested": True})

    run(main)


def _short(item: object) -> dict[str, object]:
    from bot.cli.common import plain

    row: dict[str, object] = plain(item)
    row.pop("report", None)
    return row
