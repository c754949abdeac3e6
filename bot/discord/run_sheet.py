"""How a training run reads as an embed: while it goes on, and at its end.

Pure functions of a run's row and its progress; knows no message and no database.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import discord

from bot.discord.text import bar, excerpt
from bot.discord.wording import training as words
from bot.discord.wording.adapters import FIELD_TRIAL
from bot.plain import stage
from core.jobs import LOG, Progress
from core.records import Run, parse_time
from trainer.plan import TrainingPlan

REASON_CHARS = 300
FIELD_CHARS = 1024


def progress_embed(progress: Progress | None) -> discord.Embed:
    """Show where a run is: stage, bar, time left, loss and margin."""
    fraction = progress.fraction if progress else 0.0
    embed = discord.Embed(
        title=words.TITLE,
        description=f"{stage(progress.stage if progress else 'queued')}\n"
        f"{bar(fraction)} {fraction:.0%}",
    )
    if progress is None:
        return embed
    embed.add_field(name=words.FIELDS["time"], value=words.eta(progress.eta_s))
    for name, value in (("loss", progress.loss), ("margin", progress.margin)):
        if value is not None:
            embed.add_field(name=words.FIELDS[name], value=f"{value:.3f}")
    return embed


def final_embed(run: Run, speaks: str) -> discord.Embed:
    """Show how a run ended, what did not hold, who speaks now and what to do next."""
    broke = run.state == "failed"
    verdict: dict[str, Any] = (run.report or {}).get("verdict", {})
    embed = discord.Embed(
        title=f"{words.TITLE}: {words.OUTCOMES.get(run.state, run.state).lower()}",
        description=_summary(run, verdict),
    )
    failed = [check for check in verdict.get("checks", ()) if not check["passed"]]
    if failed:
        lines = [words.broken(one["figure"], one["value"], one["bound"]) for one in failed]
        embed.add_field(
            name=words.FIELDS["checks"], value="\n".join(lines)[:FIELD_CHARS], inline=False
        )
    embed.add_field(name=words.FIELDS["speaks"], value=words.speaks(speaks))
    if run.state in words.NEXT:
        embed.add_field(name=words.FIELDS["next"], value=words.NEXT[run.state], inline=False)
    if broke:
        said = words.failed_run(_first_line(run.detail), f"{run.directory}/{LOG}")
        embed.add_field(name=words.FIELDS["operator"], value=said[:FIELD_CHARS], inline=False)
    return embed


def _summary(run: Run, verdict: dict[str, Any]) -> str:
    if run.state in ("promoted", "canary", "refused"):
        return verdict.get("summary") or words.too_little(run.detail)
    return words.BROKEN if run.state == "failed" else ""


def _first_line(detail: str) -> str:
    return excerpt(next(iter(detail.splitlines()), ""), REASON_CHARS)


def plan_embed(plan: TrainingPlan, *, chosen: bool) -> discord.Embed:
    """Show what a run would learn from; `chosen` says that the recipe was not asked for."""
    embed = discord.Embed(title=words.PLAN_TITLE)
    counts = plan.counts()
    for side, field in (("train", "learn"), ("held_out", "held_out")):
        embed.add_field(name=words.FIELDS[field], value=_counts(counts, side), inline=False)
    how = words.recipe(plan.recipe.name, chosen=chosen)
    embed.add_field(name=words.FIELDS["how"], value=how, inline=False)
    if plan.left_out:
        lines = [words.left_out(reason, number) for reason, number in plan.left_out.items()]
        embed.add_field(
            name=words.FIELDS["left_out"], value="\n".join(lines)[:FIELD_CHARS], inline=False
        )
    return embed


def status_embed(
    *, running: Sequence[str], waiting: str, itself: str, trial: str = ""
) -> discord.Embed:
    """Show what runs, what is on trial, what waits to be learnt, and when training starts by
    itself.
    """
    embed = discord.Embed(title=words.STATUS_TITLE)
    parts = {
        "runs": "\n".join(running) or words.NOTHING_RUNS,
        "waiting": waiting,
        "itself": itself,
    }
    for name, value in parts.items():
        embed.add_field(name=words.FIELDS[name], value=value[:FIELD_CHARS], inline=False)
    if trial:
        embed.add_field(name=FIELD_TRIAL, value=trial[:FIELD_CHARS], inline=False)
    return embed


def history_embed(runs: Sequence[Run]) -> discord.Embed:
    """Show runs, newest first, with what they learnt from and how well."""
    return discord.Embed(
        title=words.HISTORY_TITLE, description="\n".join(_past(run) for run in runs)
    )


def _past(run: Run) -> str:
    at = int(parse_time(run.created_at).timestamp())
    report: dict[str, Any] = (run.report or {}).get("report", {})
    figures = report.get("preference") or {}
    accuracy = figures["accuracy"]["value"] if figures else None
    head = words.history_line(at, run.state, run.counts.get("recipe", run.recipe), accuracy)
    return f"{head}\n{_counts(run.counts, 'train')}" if "train_total" in run.counts else head


def _counts(counts: dict[str, Any], side: str) -> str:
    return words.counts(
        liked=counts.get(f"{side}_liked", 0),
        disliked=counts.get(f"{side}_disliked", 0),
        corrections=counts.get(f"{side}_demonstrations", 0),
        choices=counts.get(f"{side}_pairs", 0),
        people=counts.get(f"{side}_people", 0),
    )
