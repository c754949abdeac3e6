"""How results look on a terminal: the gate's table, runs, adapters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bot.canary import TrialStanding, account
from core.records import AdapterRecord, Run, Scope
from core.shares import ShardShare
from trainer.gate import Verdict

if TYPE_CHECKING:
    from bot.discord.servers import StoredServer

STATE_STYLE = {
    "live": "bold green",
    "promoted": "green",
    "canary": "cyan",
    "refused": "red",
    "failed": "red",
    "interrupted": "yellow",
    "cancelled": "yellow",
    "retired": "dim",
}


def show_verdict(console: Console, verdict: Verdict) -> None:
    """Print every figure with its bound, then the summary."""
    table = Table(title="The gate", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in ("check", "found", "bound", ""):
        table.add_column(heading)
    for check in verdict.checks:
        mark = "[green]ok[/]" if check.passed else "[bold red]no[/]"
        table.add_row(check.figure, check.value, check.bound, mark)
    console.print(table)
    console.print(verdict.summary, style="green" if verdict.accepted else "bold red", markup=False)


def show_runs(console: Console, runs: Sequence[Run]) -> None:
    """Print runs, newest first."""
    if not runs:
        console.print("No run yet. Start one with: thumbtune retrain")
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("run", "scope", "state", "recipe", "adapter", "started", "why it ended"):
        table.add_column(heading)
    for run in runs:
        state = f"[{STATE_STYLE.get(run.state, 'white')}]{run.state}[/]"
        table.add_row(
            run.id, run.scope, state, run.recipe, run.adapter or "", run.created_at[:16], run.detail
        )
    console.print(table)


def show_adapters(
    console: Console,
    adapters: Sequence[AdapterRecord],
    scopes: Sequence[Scope],
    trials: Sequence[TrialStanding] = (),
) -> None:
    """Print the adapter versions and, for each scope, which one speaks and which is on trial."""
    for scope in scopes:
        console.print(
            f"{scope.name}: live [bold]{scope.live or 'base'}[/], "
            f"previous {scope.previous or 'base'}"
        )
    for stand in trials:
        trial = stand.trial
        console.print(
            f"{trial.scope}: on trial [bold]{trial.candidate}[/], in {trial.share:.0%} of new "
            f"conversations until {stand.ends_at[:16]} UTC: {account(stand)}",
            soft_wrap=True,
        )
    if not adapters:
        console.print("No adapter yet. Vote on some replies, then: thumbtune retrain")
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("adapter", "state", "run", "made", "sha256", "detail"):
        table.add_column(heading)
    for adapter in adapters:
        state = f"[{STATE_STYLE.get(adapter.state, 'white')}]{adapter.state}[/]"
        table.add_row(
            adapter.name,
            state,
            adapter.run_id or "",
            adapter.created_at[:16],
            adapter.sha256[:12],
            adapter.detail,
        )
    console.print(table)


def show_servers(console: Console, servers: Sequence[StoredServer], share: ShardShare) -> None:
    """Print servers with the shard and the group that each falls to."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("server", no_wrap=True)
    table.add_column("name", overflow="fold")
    for heading in ("conversations", "shard", "group"):
        table.add_column(heading, no_wrap=True)
    for one in servers:
        shard = share.shard_of(one.guild_id)
        table.add_row(
            str(one.guild_id or ""),
            escape(one.name),
            str(one.conversations),
            f"{shard} of {share.shards}",
            f"{shard % share.group.total} of {share.group.total}",
        )
    console.print(table)
