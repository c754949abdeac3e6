"""Decide whether a candidate may live: figures of a report against bounds, each named.

Pure: no torch, no files, no clock. Every check is made and shown, also after one has failed; a candidate
is accepted only if all pass. What is not there (votes, people, one kind of thumb) is a failed check that
says how much is missing. Why each bound is what it is: docs/gate.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.report import PreferenceFigures, Report, SystemFigures
from core.settings import GateSettings


@dataclass(frozen=True, slots=True)
class Check:
    """One figure against one bound. `figure` says what was measured; `why` is a sentence without its stop."""

    name: str
    figure: str
    value: str
    bound: str
    passed: bool
    why: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's answer with everything it stands on."""

    accepted: bool
    checks: tuple[Check, ...]
    summary: str

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return (mark, figure, value, bound) of each check, for any table; the mark is ✓ or ✗."""
        return [("✓" if c.passed else "✗", c.figure, c.value, c.bound) for c in self.checks]

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that did not pass, in order of weight."""
        return tuple(check for check in self.checks if not check.passed)


def judge(report: Report, bounds: GateSettings) -> Verdict:
    """Return the verdict on a report; the same report and bounds always give the same verdict."""
    checks = [*_data_checks(report.preference, bounds)]
    if report.preference is not None and all(check.passed for check in checks):
        checks += _preference_checks(report.preference, bounds)
    checks += _system_checks(report, bounds)
    return Verdict(
        accepted=all(check.passed for check in checks),
        checks=tuple(checks),
        summary=_summary(checks, report),
    )


def _summary(checks: list[Check], report: Report) -> str:
    failed = [check for check in checks if not check.passed]
    if failed:
        more = f" ({len(failed) - 1} more bounds failed)" if len(failed) > 2 else ""
        also = f"; also, {failed[1].why}" if len(failed) == 2 else ""
        return f"Refused: {failed[0].why}{also}{more}."
    figures = report.preference
    order = f" on {_rows(figures)}" if figures else ""
    accuracy = f"{figures.accuracy.value:.2f}" if figures else "-"
    return (
        f"Accepted: {report.adapter} orders replies as people voted in {accuracy} of comparisons{order}, "
        "and every other figure is within its bound."
    )


def _data_checks(figures: PreferenceFigures | None, bounds: GateSettings) -> list[Check]:
    """Is there enough held-out feedback to say anything?"""
    rows = figures.liked + figures.disliked + figures.pairs if figures else 0
    people = figures.people if figures else 0
    liked, disliked = (figures.liked, figures.disliked) if figures else (0, 0)
    pairs = figures.pairs if figures else 0
    return [
        Check(
            "held_out", "held-out votes and pairs", str(rows), f"at least {bounds.min_held_out}",
            rows >= bounds.min_held_out,
            "there is no held-out feedback to test on"
            if not rows
            else f"only {rows} held-out votes and pairs; {bounds.min_held_out - rows} more are needed",
        ),
        Check(
            "people", "people behind them", str(people), f"at least {bounds.min_people}",
            people >= bounds.min_people,
            f"the held-out feedback comes from {people} people; {bounds.min_people - people} more are needed",
        ),
        Check(
            "both_sides", "liked, disliked, pairs", f"{liked}, {disliked}, {pairs}",
            f"{bounds.min_each_side} liked and disliked, or {bounds.min_held_out} pairs",
            min(liked, disliked) >= bounds.min_each_side or pairs >= bounds.min_held_out,
            _missing_side(liked, disliked, bounds),
        ),
    ]  # fmt: skip


def _missing_side(liked: int, disliked: int, bounds: GateSettings) -> str:
    side, count = ("liked", liked) if liked <= disliked else ("disliked", disliked)
    return (
        f"only {count} of the held-out votes are on {side} replies; {bounds.min_each_side - count} more are "
        "needed to compare the two sides"
    )


def _preference_checks(figures: PreferenceFigures, bounds: GateSettings) -> list[Check]:
    """Does the candidate order replies as people did, beyond chance and no worse than the live one?"""
    accuracy = figures.accuracy
    checks = [
        Check(
            "chance", "chance of such an order by luck", f"{figures.p_value:.4f}",
            f"at most {bounds.max_p_value:g}", figures.p_value <= bounds.max_p_value,
            f"on {_rows(figures)} the adapter does not order replies better than luck could (accuracy "
            f"{accuracy.value:.2f}, interval {accuracy.low:.2f} to {accuracy.high:.2f}; luck does as well "
            f"{_often(figures.p_value)}, at most {bounds.max_p_value:.0%} may be luck)",
        ),
        Check(
            "accuracy", "replies in the order people voted", f"{accuracy.value:.2f}",
            f"at least {bounds.min_accuracy:g}", accuracy.value >= bounds.min_accuracy,
            f"on {_rows(figures)} only {accuracy.value:.2f} of comparisons are in the order people voted, "
            f"below {bounds.min_accuracy:g} (0.5 is chance)",
        ),
    ]  # fmt: skip
    if figures.over_live is not None:
        change = figures.over_live
        checks.append(
            Check(
                "over_live", "order, candidate minus live", f"{change.value:+.2f} ({change.low:+.2f} to {change.high:+.2f})",
                "not clearly below 0", change.high >= 0,
                f"the live adapter orders held-out replies better (by {-change.value:.2f}, at least {-change.high:.2f})",
            )
        )  # fmt: skip
    return checks


def _system_checks(report: Report, bounds: GateSettings) -> list[Check]:
    """Is what the model could do before still there?"""
    own, base = report.systems["candidate"], report.systems["base"]
    reference = report.systems[report.reference]
    return [
        _keep_check(own, reference, report.reference, bounds),
        _most(
            "perplexity", "perplexity on plain text, times the base's", own.perplexity / base.perplexity,
            bounds.max_perplexity_ratio, "plain text has become {value} times as surprising as for the base",
        ),
        _most(
            "kl", "distance from the base (nats a token)", own.kl_to_base, bounds.max_kl,
            "the adapter went {value} nats a token away from the base",
        ),
        _length_check(own, reference, report.reference, bounds),
        _most(
            "repetition", f"rise of repeated 4-grams over the {report.reference}",
            own.repetition - reference.repetition, bounds.max_repetition_rise,
            "replies repeat themselves more: the share of repeated 4-grams rose by {value}",
        ),
        _most("empty", "empty replies", own.empty, bounds.max_empty, "{value} of sampled replies are empty"),
    ]  # fmt: skip


def _most(name: str, figure: str, value: float, bound: float, why: str) -> Check:
    shown = f"{value:.3g}"
    reason = f"{why.format(value=shown)}, more than {bound:g}"
    return Check(name, figure, shown, f"at most {bound:g}", value <= bound, reason)


def _keep_check(
    own: SystemFigures, reference: SystemFigures, name: str, bounds: GateSettings
) -> Check:
    drop = reference.keep_score - own.keep_score
    return Check(
        "keep_set", f"keep-set passed (the {name}: {reference.keep_score:.2f})", f"{own.keep_score:.2f}",
        f"at least {reference.keep_score - bounds.max_keep_drop:.2f}",
        drop <= bounds.max_keep_drop + 1e-9,
        f"the adapter forgot: it passes {own.keep_score:.0%} of the keep-set, the {name} "
        f"{reference.keep_score:.0%}; a fall of {bounds.max_keep_drop:.0%} is the most",
    )  # fmt: skip


def _length_check(
    own: SystemFigures, reference: SystemFigures, name: str, bounds: GateSettings
) -> Check:
    before, after, most = (
        max(1.0, reference.median_words),
        max(1.0, own.median_words),
        bounds.max_length_ratio,
    )
    return Check(
        "length", f"median words of a reply (the {name}: {reference.median_words:g})", f"{own.median_words:g}",
        f"{before / most:.0f} to {before * most:.0f}", 1 / most <= after / before <= most,
        f"replies went from {reference.median_words:g} to {own.median_words:g} words in the median, more "
        f"than {most:g} times",
    )  # fmt: skip


def _rows(figures: PreferenceFigures) -> str:
    votes = figures.liked + figures.disliked
    parts = [f"{votes} held-out votes"] if votes else []
    parts += [f"{figures.pairs} held-out pairs"] if figures.pairs else []
    return " and ".join(parts)


def _often(p_value: float) -> str:
    return f"in {p_value:.0%} of cases" if p_value >= 0.01 else "in under 1 % of cases"
