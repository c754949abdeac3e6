"""What so many servers ask of the bot: arithmetic on named assumptions, measured where possible.

Invariant: nothing is drawn, timed or read, so the same assumptions give the same figures anywhere.
A day's load is spread over the day with one peak; servers are alike, which real ones are not. Knows
no bot.
"""

from __future__ import annotations

import math
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any

DAY_S, DAY_MIN, YEAR_DAYS = 86_400, 1_440, 365


def given(value: float, unit: str, source: str) -> Any:
    """Return a field with its value, its unit and where the value comes from."""
    return field(default=value, metadata={"unit": unit, "source": source})


_GUESS = "assumption"
_STORED = "measured: performance.md, a year of a busy bot"
_SERVED = "measured: performance.md, chats at once"
_GATEWAY = "https://docs.discord.com/developers/events/gateway"


@dataclass(frozen=True, slots=True)
class Assumptions:
    """Every figure that the arithmetic rests on."""

    active_share: float = given(0.3, "of the servers, on a day", _GUESS)
    people: float = given(8, "who talk to the bot, a day and active server", _GUESS)
    messages: float = given(6, "to the bot, a day and person", _GUESS)
    peak: float = given(3, "times the day's mean, in the busiest hour", _GUESS)
    votes_a_reply: float = given(0.2, "votes", f"{_GUESS}; the year measured has as many")
    reply_tokens: float = given(80, "tokens", "measured: experiments.md, median of 60 words")
    votes_a_run: float = given(
        240, "new votes that start one", "experiments.md; schedule.min_votes"
    )
    busy_share: float = given(0.6, "of a machine's capacity that is planned with", _GUESS)
    cpu_tokens_s: float = given(304, "tokens/s, two cores, 16 chats, 4 adapters", _SERVED)
    cpu_reply_s: float = given(4.2, "s a reply, of 16 at once", f"{_SERVED}: 80 / (304 / 16)")
    cpu_run_min: float = given(4.7, "min a run, two cores", "measured: experiments.md, 280 s")
    gpu_tokens_s: float = given(3_000, "tokens/s of a GPU", f"{_GUESS}; not measured")
    gpu_reply_s: float = given(1.6, "s a reply", f"{_GUESS}: 50 tokens/s each")
    gpu_run_min: float = given(
        0.15, "min of a GPU a run", "measured: experiments.md, 15 at once took 137 s each"
    )
    adapter_mb: float = given(9.8, "MB in memory and on disk", "4.9 million weights of rank 16")
    kept_adapters: float = given(2, "versions kept for a server that trained", _GUESS)
    process_mb: float = given(1_490, "MB, 16 chats with the base", _SERVED)
    max_adapters: float = given(8, "adapters resident", "serving.max_adapters, its default")
    reply_bytes: float = given(2_033, "bytes a reply in the database", _STORED)
    database_gb: float = given(2.0, "GB of a database whose costs are known", _STORED)
    forget_s_a_gb: float = given(16.2, "s a GB, forgetting one person", f"{_STORED}: 32.9 s")
    writes_a_reply: float = given(8, "transactions a reply, votes besides", _GUESS)
    writes_s: float = given(200, "transactions/s within 2 ms", _STORED)
    process_replies_s: float = given(
        20, "replies/s of one process", "tests/bot/discord/test_load.py holds it, idle machine"
    )
    follow_us: float = given(4.9, "us of CPU a server and look", "measured: scale.md, what held")
    looks_s: float = given(5, "looks/s while anything is written", "bot/registry.py")
    requests_a_reply: float = given(
        7, "REST requests", "measured on the double: a reply of 60 words in 3 s, 5 edits in 5 s"
    )
    requests_s: float = given(
        50,
        "requests/s of a bot, all its processes together",
        "https://docs.discord.com/developers/topics/rate-limits",
    )
    shard_servers: float = given(2_500, "servers of a shard at most", _GATEWAY)
    shard_planned: float = given(1_000, "servers of a shard, as recommended", _GATEWAY)
    identify_s: float = given(5, "s between two shards", f"{_GATEWAY}, max_concurrency 1")
    starts_a_day: float = given(1_000, "sessions that may begin, a day", _GATEWAY)
    cpu_usd_h: float = given(0.08, "USD an hour, two cores", f"{_GUESS} of November 2026")
    gpu_usd_h: float = given(2.5, "USD an hour, one large GPU", f"{_GUESS} of November 2026")


@dataclass(frozen=True, slots=True)
class Load:
    """What a number of servers asks for, before any machine is chosen."""

    servers: int
    active_servers: float
    people_day: float
    replies_day: float
    replies_peak_s: float
    tokens_day: float
    tokens_peak_s: float
    votes_day: float
    runs_day: float
    cpu_training_min_day: float
    gpu_training_min_day: float
    database_gb_year: float
    forget_s: float
    adapters_gb: float
    shards: int
    start_s: float
    full_starts_day: float


@dataclass(frozen=True, slots=True)
class Limit:
    """Something one process on one machine has only so much of; `used` 1 is all of it."""

    what: str
    used: float

    def full_at(self, servers: int) -> float:
        """Return at how many servers it is used up, where so many use `used` of it."""
        return servers / self.used


@dataclass(frozen=True, slots=True)
class Plan:
    """The machines that carry a load, at the planned share of their capacity."""

    groups: int
    groups_for_a_year: int
    adapters_a_group: int
    memory_gb_a_group: float
    cpu_machines: int
    cpu_usd_month: float
    gpus: float
    gpu_usd_month: float


def load_of(servers: int, a: Assumptions) -> Load:
    """Work out what so many servers ask for."""
    active = servers * a.active_share
    replies = active * a.people * a.messages
    peak_s = replies / DAY_S * a.peak
    votes = replies * a.votes_a_reply
    runs = votes / a.votes_a_run
    shards = max(1, math.ceil(servers / a.shard_planned))
    year_gb = replies * YEAR_DAYS * a.reply_bytes / 1e9
    return Load(
        servers=servers,
        active_servers=active,
        people_day=active * a.people,
        replies_day=replies,
        replies_peak_s=peak_s,
        tokens_day=replies * a.reply_tokens,
        tokens_peak_s=peak_s * a.reply_tokens,
        votes_day=votes,
        runs_day=runs,
        cpu_training_min_day=runs * a.cpu_run_min,
        gpu_training_min_day=runs * a.gpu_run_min,
        database_gb_year=year_gb,
        forget_s=year_gb * a.forget_s_a_gb,
        adapters_gb=active * a.kept_adapters * a.adapter_mb / 1e3,
        shards=shards,
        start_s=(shards - 1) * a.identify_s,
        full_starts_day=a.starts_a_day / shards,
    )


def limits_of(load: Load, a: Assumptions) -> tuple[Limit, ...]:
    """Return how much of each limit one process on one two-core machine would use."""
    return (
        Limit("servers on one shard", load.servers / a.shard_servers),
        Limit("database after a year", load.database_gb_year / a.database_gb),
        Limit("adapters speaking at once", load.replies_peak_s * a.cpu_reply_s / a.max_adapters),
        Limit("tokens/s at the peak", load.tokens_peak_s / a.cpu_tokens_s),
        Limit("training minutes of a day", load.cpu_training_min_day / DAY_MIN),
        Limit(
            "REST requests/s at the peak", load.replies_peak_s * a.requests_a_reply / a.requests_s
        ),
        Limit("replies/s of one event loop", load.replies_peak_s / a.process_replies_s),
        Limit("writes/s at the peak", writes_s(load, a) / a.writes_s),
        Limit("following adapters' pointers", load.active_servers * a.follow_us * a.looks_s / 1e6),
    )


def writes_s(load: Load, a: Assumptions) -> float:
    """Return the database's transactions a second at the peak."""
    return load.replies_peak_s * (a.writes_a_reply + a.votes_a_reply)


def plan_of(load: Load, a: Assumptions) -> Plan:
    """Return the machines for a load: every group a process, on CPUs alone or with GPUs.

    What the databases grow to in a year is told apart: it is settled by how long rows are kept.
    """
    groups = max(
        1,
        math.ceil(load.replies_peak_s / (a.process_replies_s * a.busy_share)),
        math.ceil(writes_s(load, a) / (a.writes_s * a.busy_share)),
    )
    at_once = math.ceil(load.replies_peak_s * a.gpu_reply_s / groups)
    serving = load.tokens_peak_s / (a.cpu_tokens_s * a.busy_share)
    training = load.cpu_training_min_day / (DAY_MIN * a.busy_share)
    cpus = max(1, math.ceil(serving + training))
    gpus = load.tokens_peak_s / (a.gpu_tokens_s * a.busy_share)
    gpus += load.gpu_training_min_day / (DAY_MIN * a.busy_share)
    month_h = 24 * YEAR_DAYS / 12
    return Plan(
        groups=groups,
        groups_for_a_year=max(groups, math.ceil(load.database_gb_year / a.database_gb)),
        adapters_a_group=at_once,
        memory_gb_a_group=(a.process_mb + at_once * a.adapter_mb) / 1e3,
        cpu_machines=cpus,
        cpu_usd_month=cpus * a.cpu_usd_h * month_h,
        gpus=gpus,
        gpu_usd_month=(math.ceil(gpus) * a.gpu_usd_h + groups * a.cpu_usd_h) * month_h,
    )


def assumption_fields() -> tuple[Field[Any], ...]:
    """Return the assumptions with unit and source, in order."""
    return fields(Assumptions)


def with_changes(changes: dict[str, float]) -> Assumptions:
    """Return the assumptions with some of them changed. Raises ValueError for an unknown name."""
    known = [one.name for one in assumption_fields()]
    unknown = sorted(changes.keys() - set(known))
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: no such assumption; known: {', '.join(known)}")
    wrong = sorted(name for name, value in changes.items() if not value > 0)
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: expected a number above 0")
    return replace(Assumptions(), **changes)
