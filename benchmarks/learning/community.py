"""A simulated community: who is shown which reply, who votes, and how often they are wrong.

Few vote and the unhappy vote more; a few people vote a lot, most a little. Gives feedback rows as
the storage gives them, so that weights, caps and the split are the product's own. Everything is
drawn from a seed. Knows no models.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks.learning.pool import BaseReply
from benchmarks.learning.tastes import Taste
from core.generation import FinishReason, Message
from core.records import Feedback, FeedbackRow, SignalKind, utc_text

PEOPLE = 24
VOTES_IF_PLEASED, VOTES_IF_NOT = 0.25, 0.45
"""How likely somebody votes on a reply: most do not, and the unhappy do more often."""
_BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
_MINUTES_APART = 11


@dataclass(frozen=True, slots=True)
class Member:
    """One person: `activity` is their share of what is seen, `noise` the chance of a wrong vote."""

    id: str
    activity: float
    noise: float


@dataclass(frozen=True, slots=True)
class Signal:
    """One thing somebody said of a reply: a thumb, a correction, or which of two is better."""

    member: str
    kind: SignalKind
    reply: BaseReply
    adapter: str = "base"
    text: str | None = None
    other: BaseReply | None = None


def make_members(seed: int, noise: float) -> list[Member]:
    """Draw people whose errors differ (0 to twice `noise`) and average `noise` by activity."""
    chance = random.Random(f"people-{seed}")
    raw = [1 / (rank + 2) for rank in range(PEOPLE)]
    errors = [chance.uniform(0, 2) for _ in range(PEOPLE)]
    chance.shuffle(errors)
    total = sum(raw)
    mean = sum(error * share for error, share in zip(errors, raw, strict=True)) / total
    return [
        Member(f"p_{seed}_{rank:02d}", share / total, min(0.5, noise * error / mean))
        for rank, (share, error) in enumerate(zip(raw, errors, strict=True))
    ]


def cast_votes(
    held: Callable[[Member], Taste],
    members: Sequence[Member],
    replies: Iterator[BaseReply],
    count: int,
    seed: int | str,
) -> list[Signal]:
    """Show replies one after another until `count` votes are cast; `held` is what a member likes.

    Raises ValueError if the replies run out first.
    """
    chance = random.Random(f"votes-{seed}")
    activity = [member.activity for member in members]
    signals: list[Signal] = []
    for reply in replies:
        (member,) = chance.choices(members, activity)
        pleased = held(member).likes(reply.prompt, reply.text, reply.complete)
        if chance.random() < (VOTES_IF_PLEASED if pleased else VOTES_IF_NOT):
            up = pleased != (chance.random() < member.noise)
            signals.append(Signal(member.id, "up" if up else "down", reply))
        if len(signals) == count:
            return signals
    raise ValueError(f"{len(signals)} of {count} votes were cast when the replies ran out")


def feedback_rows(signals: Sequence[Signal]) -> list[FeedbackRow]:
    """Return what storage would return of these signals, in the order they were given."""
    return [_row(number, signal) for number, signal in enumerate(signals)]


def said_at(number: int) -> str:
    """Return when the signal of this number is given."""
    return utc_text(_BEGINNING + timedelta(minutes=_MINUTES_APART * number))


def read_signals(rows: Sequence[dict[str, Any]]) -> list[Signal]:
    """Read signals back from what `asdict` made of them."""
    return [
        Signal(
            **{
                **row,
                "reply": BaseReply(**row["reply"]),
                "other": BaseReply(**row["other"]) if row["other"] else None,
            }
        )
        for row in rows
    ]


def _row(number: int, signal: Signal) -> FeedbackRow:
    reply, other = signal.reply, signal.other
    return FeedbackRow(
        feedback=Feedback(
            id=f"f_{number:016x}",
            reply_id=_reply_id(reply, signal.adapter),
            person_id=signal.member,
            kind=signal.kind,
            text=signal.text,
            other_reply_id=_reply_id(other, signal.adapter) if other else None,
            reasons=(),
            dropped=False,
            at=said_at(number),
        ),
        scope="community",
        platform="simulated",
        person_name=signal.member,
        prompt=(Message("user", reply.prompt),),
        reply_text=reply.text,
        reply_adapter=signal.adapter,
        finish_reason=finish_reason(reply),
        other_text=other.text if other else None,
        authors=(signal.member,),
        all_consented=True,
        other_finish_reason=finish_reason(other) if other else None,
        other_id=_reply_id(other, signal.adapter) if other else None,
    )


def _reply_id(reply: BaseReply, adapter: str) -> str:
    return f"r_{adapter}_{reply.draw}_{reply.prompt}"


def finish_reason(reply: BaseReply) -> FinishReason:
    """Return why a reply ended."""
    return "stop" if reply.complete else "length"
