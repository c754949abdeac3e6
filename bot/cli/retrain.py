"""`thumbtune retrain`: one training run, watched to its end."""

from __future__ import annotations

from typing import Annotated

import typer

from bot.cli.common import (
    DEFAULT_SCOPE,
    ConfigOption,
    DataDirOption,
    Exit,
    JsonOption,
    Output,
    ScopeOption,
    run,
    settings_or_exit,
)
from bot.cli.progress import run_bar
from bot.cli.tables import show_verdict
from bot.driver import Outcome
from bot.learning import LearningService
from bot.world import make_learning, open_database, prepare_base
from core.errors import NotEnoughData

EXIT_OF_STATE = {
    "promoted": Exit.OK,
    "canary": Exit.OK,
    "refused": Exit.REFUSED,
    "cancelled": Exit.CANCELLED,
}


def retrain(
    scope: ScopeOption = DEFAULT_SCOPE,
    recipe: Annotated[
        str | None, typer.Option(help="auto, sft, kto, apo or dpo; the settings' own if left out.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be learnt; train nothing.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Promote even if the gate refuses (kept in the audit).")
    ] = False,
    resume: Annotated[
        str | None, typer.Option(help="Go on with this interrupted run.", metavar="RUN")
    ] = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train an adapter from the feedback, let the gate judge it, promote it.

    Exit code 0: promoted, or on trial (canary.share). 3: refused by the gate, or too little data.
    5: cancelled. 1: failed.
    """
    settings = settings_or_exit(config, data_dir)
    output = Output(as_json)

    async def main() -> Exit:
        async with open_database(settings) as database:
            base = await prepare_base(settings, output.say)
            learning = make_learning(settings, database, base)
            if dry_run:
                return await _dry_run(learning, output, scope, recipe)
            await learning.mark_interrupted()
            with run_bar(output.console) as on_progress:
                if resume:
                    outcome = await learning.resume(resume, actor="cli", on_progress=on_progress)
                else:
                    outcome = await learning.retrain(
                        scope, actor="cli", recipe=recipe, force=force, on_progress=on_progress
                    )
            return _report(output, outcome)

    raise typer.Exit(run(main))


async def _dry_run(
    learning: LearningService, output: Output, scope: str, recipe: str | None
) -> Exit:
    try:
        plan = await learning.plan(scope, recipe)
    except NotEnoughData as error:
        output.say(f"Nothing would be trained: {error}")
        output.result({"would_train": False, "why": str(error)})
        return Exit.REFUSED
    counts = plan.counts()
    output.say(f"Recipe {plan.recipe.name}: {plan.recipe.why}")
    for name, value in counts.items():
        output.say(f"  {name.replace('_', ' ')}: {value}")
    output.result(
        {"would_train": True, "recipe": plan.recipe.name, "why": plan.recipe.why, **counts}
    )
    return Exit.OK


def _report(output: Output, outcome: Outcome) -> Exit:
    ended = outcome.run
    if outcome.verdict:
        show_verdict(output.console, outcome.verdict)
    output.say(f"{ended.id}: {ended.state}: {ended.detail}")
    output.result(
        {
            "run": ended.id,
            "state": ended.state,
            "adapter": ended.adapter,
            "recipe": ended.counts.get("recipe", ended.recipe),
            "detail": ended.detail,
            "counts": ended.counts,
            "verdict": outcome.verdict,
        }
    )
    return EXIT_OF_STATE.get(ended.state, Exit.FAILED)
