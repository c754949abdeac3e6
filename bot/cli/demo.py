"""`thumbtune demo`: watch the whole loop once, in a world of its own."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bot.cli.common import (
    ConfigOption,
    DataDirOption,
    Exit,
    JsonOption,
    Output,
    run,
    settings_or_exit,
)
from bot.cli.progress import step_bars
from bot.cli.tables import show_verdict
from bot.demo.community import TASTES
from bot.demo.loop import MAX_TOKENS, Demo, DemoResult
from bot.world import open_world, prepare_base
from core.processors import available_cores
from core.sections import CanarySettings
from core.settings import Settings

EXAMPLES = 3


class TasteName(StrEnum):
    """The communities the demo can simulate."""

    brief = "brief"
    none = "none"


def demo(
    seed: Annotated[int, typer.Option(help="Another seed is another community.")] = 0,
    taste: Annotated[
        TasteName, typer.Option(help="none shuffles the votes: the gate must refuse.")
    ] = TasteName.brief,
    votes: Annotated[int, typer.Option(min=40, max=240, help="How many votes are cast.")] = 240,
    unseen: Annotated[int, typer.Option(min=20, max=80, help="How many prompts measure it.")] = 80,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Chat, vote, train, gate, swap with a simulated community; then compare on unseen prompts.

    Exit code 0: promoted. 3: refused by the gate.
    """
    settings = settings_or_exit(config, data_dir)
    output = Output(as_json)
    chosen = TASTES[taste.value]

    async def main() -> Exit:
        started = time.monotonic()
        base = await prepare_base(settings, output.say)
        world_settings = _world_of_its_own(settings, base.path, seed)
        output.say(
            f"A community of 12 that likes {chosen.sentence}. Its world: {world_settings.data_dir}"
        )
        async with open_world(world_settings, output.say) as world:
            with step_bars(output.console) as tell:
                result = await Demo(
                    world, chosen, seed=seed, votes=votes, unseen=unseen, tell=tell
                ).run()
        seconds = round(time.monotonic() - started, 1)
        _show(output.console, result, seconds)
        output.result(_summary(result, seconds))
        return Exit.OK if result.outcome.run.state == "promoted" else Exit.REFUSED

    raise typer.Exit(run(main))


def _world_of_its_own(settings: Settings, base_path: Path, seed: int) -> Settings:
    """Every demo runs in a fresh directory on the base already there; training may use every core.

    Nobody chats while the demo trains, so it need not keep a core free.
    """
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-seed{seed}"
    return settings.model_copy(
        update={
            "data_dir": settings.data_dir / "demo" / name,
            "model": settings.model.model_copy(update={"source": str(base_path), "revision": ""}),
            "canary": CanarySettings(),  # what the gate accepts is asked at once
            "training": settings.training.model_copy(
                update={"threads": settings.training.threads or available_cores()}
            ),
        }
    )


def _show(console: Console, result: DemoResult, seconds: float) -> None:
    if result.outcome.verdict:
        show_verdict(console, result.outcome.verdict)
    else:
        console.print(result.outcome.run.detail, style="bold red", markup=False)
    console.print()
    _show_examples(console, result)
    low, high = result.difference_interval
    console.print(
        f"Liked replies on {len(result.prompts)} unseen prompts: base {result.base_like_rate:.2f}, "
        f"now {result.live_like_rate:.2f} ({result.speaking}); difference "
        f"{result.live_like_rate - result.base_like_rate:+.2f} "
        f"(95 % interval {low:+.2f} to {high:+.2f})",
        style="bold",
        markup=False,
    )
    steps = ", ".join(f"{step} {took:.0f} s" for step, took in result.times_s.items())
    console.print(f"{seconds:.0f} s in all: {steps}", markup=False)


def _show_examples(console: Console, result: DemoResult) -> None:
    table = Table(title="Unseen prompts, before and after", title_justify="left", show_lines=True)
    for heading in ("prompt", "base", result.speaking):
        table.add_column(heading, ratio=1, overflow="fold")
    rows = zip(result.prompts, result.before, result.after, strict=True)
    for prompt, before, after in list(rows)[:EXAMPLES]:
        table.add_row(
            prompt, *(("👍 " if one.liked else "👎 ") + one.text for one in (before, after))
        )
    console.print(table)


def _summary(result: DemoResult, seconds: float) -> dict[str, object]:
    run_row, verdict = result.outcome.run, result.outcome.verdict
    return {
        "seed": result.seed,
        "taste": result.taste,
        "base_like_rate": result.base_like_rate,
        "live_like_rate": result.live_like_rate,
        "difference_interval": result.difference_interval,
        "promoted": run_row.state == "promoted",
        "forced": run_row.force,
        "speaking": result.speaking,
        "unseen": len(result.prompts),
        "max_tokens": MAX_TOKENS,
        "votes_up": result.votes_up,
        "votes_down": result.votes_down,
        "state": run_row.state,
        "detail": run_row.detail,
        "recipe": run_row.counts.get("recipe", run_row.recipe),
        "checks": verdict,
        "seconds": seconds,
        "times_s": result.times_s,
    }
