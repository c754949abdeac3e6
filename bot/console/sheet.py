"""One training run as a page shows it: while it goes on, and at its end.

Pure functions of its row and its progress; a report that an older version wrote differently is left
out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bot.adapters import report_of
from bot.console.drawing import Curve, curve
from bot.plain import LEFT_OUT
from core.jobs import Progress
from core.records import ACTIVE_RUN_STATES, Run, parse_time
from core.report import Report

RECIPES = {
    "auto": "what suits the votes best",
    "bon": "find out what people like, rank own replies by it (bon)",
    "sft": "imitate corrections and liked replies (sft)",
    "kto": "learn from both thumbs (kto)",
    "apo": "learn from both thumbs, gently (apo)",
    "dpo": "learn from choices between two replies (dpo)",
}
"""What a recipe does, as it is chosen."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the gate's table."""

    figure: str
    value: str
    bound: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Side:
    """What one side of the split holds."""

    total: int
    liked: int
    disliked: int
    pairs: int
    corrections: int
    people: int


@dataclass(frozen=True, slots=True)
class Sheet:
    """A run: `verdict` and `report` are there once it was judged, `train` once it has chosen."""

    run: Run
    active: bool
    recipe: str
    took_s: float
    fraction: float
    stage: str
    message: str
    eta_s: float | None
    curves: tuple[Curve, ...]
    summary: str
    checks: tuple[Check, ...]
    report: Report | None
    train: Side | None
    held_out: Side | None
    left_out: tuple[tuple[str, int], ...]


def make_sheet(run: Run, progress: Sequence[Progress]) -> Sheet:
    """Put together what is known of a run."""
    last = progress[-1] if progress else None
    verdict: dict[str, Any] = (run.report or {}).get("verdict") or {}
    ended, begun = parse_time(run.updated_at), parse_time(run.created_at)
    return Sheet(
        run=run,
        active=run.state in ACTIVE_RUN_STATES,
        recipe=str(run.counts.get("recipe", run.recipe)),
        took_s=(ended - begun).total_seconds(),
        fraction=last.fraction if last else 0.0,
        stage=last.stage if last and run.state == "training" else run.state,
        message=last.message if last else "",
        eta_s=last.eta_s if last else None,
        curves=_curves(progress),
        summary=str(verdict.get("summary", "")),
        checks=tuple(_check(one) for one in verdict.get("checks", ())),
        report=report_of(run),
        train=side(run.counts, "train"),
        held_out=side(run.counts, "held_out"),
        left_out=left_out(run.counts),
    )


def side(counts: Mapping[str, Any], name: str) -> Side | None:
    """Return what one side holds, None where nothing was counted."""
    if f"{name}_total" not in counts:
        return None

    def of(kind: str) -> int:
        return int(counts.get(f"{name}_{kind}", 0))

    return Side(
        total=of("total"),
        liked=of("liked"),
        disliked=of("disliked"),
        pairs=of("pairs"),
        corrections=of("demonstrations"),
        people=of("people"),
    )


def left_out(counts: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    """Return why signals were left out, in plain words, the most frequent first."""
    named = {
        key.removeprefix("left_out_"): int(value)
        for key, value in counts.items()
        if key.startswith("left_out_") and value
    }
    return plain_reasons(named)


def plain_reasons(counted: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """Return reasons in plain words with their counts, the most frequent first."""
    ordered = sorted(counted.items(), key=lambda item: -item[1])
    return tuple((LEFT_OUT.get(reason, reason), count) for reason, count in ordered)


def _check(one: Mapping[str, Any]) -> Check:
    return Check(str(one["figure"]), str(one["value"]), str(one["bound"]), bool(one["passed"]))


def _curves(progress: Sequence[Progress]) -> tuple[Curve, ...]:
    losses = [(line.fraction, line.loss) for line in progress if line.loss is not None]
    margins = [(line.fraction, line.margin) for line in progress if line.margin is not None]
    drawn = (curve("Loss", losses), curve("Margin, liked over disliked", margins))
    return tuple(one for one in drawn if one)
