"""What 10, 1,000 and 100,000 servers ask for, what breaks first, and what it costs.

Arithmetic only (benchmarks.scale_model): each figure rests on named assumptions, any of which
`--set NAME=VALUE` changes. `--record` puts the tables into docs/scale.md between its markers.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.learning.page import write_part
from benchmarks.results import aligned
from benchmarks.scale_model import (
    Assumptions,
    Load,
    Plan,
    assumption_fields,
    limits_of,
    load_of,
    plan_of,
    with_changes,
)

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
SERVERS = (10, 1_000, 100_000)
LOAD: dict[str, str] = {
    "active_servers": "servers where somebody talks on a day",
    "people_day": "people a day",
    "replies_day": "replies a day",
    "replies_peak_s": "replies/s in the busiest hour",
    "tokens_day": "tokens a day",
    "tokens_peak_s": "tokens/s in the busiest hour",
    "votes_day": "votes a day",
    "runs_day": "training runs a day",
    "cpu_training_min_day": "training minutes a day, two cores",
    "gpu_training_min_day": "training minutes a day, a GPU",
    "database_gb_year": "database growth, GB a year",
    "forget_s": "s to forget one person after a year, all in one database",
    "adapters_gb": "adapters on disk, GB",
    "shards": "shards",
    "start_s": "s until the last shard may identify",
    "full_starts_day": "starts of everything that a day allows",
}
PLAN: dict[str, str] = {
    "groups": "groups (bot processes) for the load",
    "groups_for_a_year": "groups for databases of the size measured, after a year",
    "adapters_a_group": "adapters speaking at once in a group",
    "memory_gb_a_group": "memory of a group with its own model, GB",
    "cpu_machines": "on CPUs alone: machines of two cores",
    "cpu_usd_month": "on CPUs alone: USD a month",
    "gpus": "with GPUs: how many, chat and training",
    "gpu_usd_month": "with GPUs: USD a month, a small machine a group besides",
}


def load_table(loads: Sequence[Load]) -> list[str]:
    """Return what is asked for, a column for each size."""
    return _table(loads, LOAD, "what is asked for")


def limits_table(loads: Sequence[Load], a: Assumptions) -> list[str]:
    """Return what one process on two cores would use of each limit, what is full first at the top.

    All are proportional to the servers, so the first size says where each is full.
    """
    rows = zip(*(limits_of(load, a) for load in loads), strict=True)
    servers = loads[0].servers
    ordered = sorted(rows, key=lambda row: row[0].full_at(servers))
    body = [
        [
            row[0].what,
            f"{row[0].full_at(servers):,.0f} servers",
            *(_percent(limit.used) for limit in row),
        ]
        for row in ordered
    ]
    return aligned(["of one process on two cores", "full at", *_heads(loads)], body)


def plan_table(loads: Sequence[Load], a: Assumptions) -> list[str]:
    """Return the machines and what they cost."""
    plans = [plan_of(load, a) for load in loads]
    return _table(plans, PLAN, "what carries it", _heads(loads))


def assumptions_table(a: Assumptions) -> list[str]:
    """Return every assumption with its value, unit and source."""
    body = [
        [
            f"`{one.name}`",
            _shown(getattr(a, one.name)),
            one.metadata["unit"],
            one.metadata["source"],
        ]
        for one in assumption_fields()
    ]
    return aligned(("assumption", "value", "unit", "source"), body)


def figures(servers: Sequence[int], a: Assumptions) -> list[str]:
    """Return all that docs/scale.md holds between its markers."""
    loads = [load_of(count, a) for count in servers]
    parts = (load_table(loads), limits_table(loads, a), plan_table(loads, a), assumptions_table(a))
    return "\n\n".join("\n".join(part) for part in parts).split("\n")


def as_objects(servers: Sequence[int], a: Assumptions) -> list[dict[str, Any]]:
    """Return the same figures for programs."""
    loads = [load_of(count, a) for count in servers]
    return [
        {
            "load": asdict(load),
            "limits": {limit.what: limit.used for limit in limits_of(load, a)},
            "plan": asdict(plan_of(load, a)),
        }
        for load in loads
    ]


def main() -> None:
    """Work out and print."""
    parser = argparse.ArgumentParser(description="What so many servers ask for.")
    parser.add_argument("--servers", type=_count, nargs="+", default=list(SERVERS), metavar="N")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="changes")
    parser.add_argument("--json", action="store_true", help="print one object as the last line")
    parser.add_argument("--record", action="store_true", help="put the tables into docs/scale.md")
    options = parser.parse_args()
    try:
        assumed = with_changes(dict(map(_change, options.changes)))
    except ValueError as error:
        parser.error(f"--set: {error}")
    lines = figures(options.servers, assumed)
    print("\n".join(lines))
    if options.record:
        write_part("figures", lines, page=PAGE)
    if options.json:
        print(json.dumps({"sizes": as_objects(options.servers, assumed)}))


def _table(
    columns: Sequence[Load] | Sequence[Plan],
    names: dict[str, str],
    title: str,
    heads: Sequence[str] | None = None,
) -> list[str]:
    body = [
        [what, *(_shown(getattr(column, name)) for column in columns)]
        for name, what in names.items()
    ]
    return aligned([title, *(heads or _heads(columns))], body)


def _heads(loads: Sequence[Any]) -> list[str]:
    return [f"{load.servers:,} servers" for load in loads]


def _percent(used: float) -> str:
    return f"{100 * used:,.0f} %" if used >= 0.01 else "under 1 %"


def _shown(value: float) -> str:
    """Show a figure in three digits or so."""
    if value >= 1e9:
        return f"{value / 1e9:,.3g} billion"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _count(text: str) -> int:
    count = int(text.replace(",", "").replace("_", ""))
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a number of servers, 1 or more")
    return count


def _change(text: str) -> tuple[str, float]:
    name, sign, value = text.partition("=")
    if not sign:
        raise ValueError(f"{text!r}: expected NAME=VALUE")
    return name, float(value)


if __name__ == "__main__":
    main()
