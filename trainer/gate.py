"""Decide whether a candidate may live: figures of a report against bounds, each named.

Pure: no torch, no files, no clock. Every check is made and shown, also after one has failed; a
candidate is accepted only if all pass. What is not there (votes, people, one kind of thumb) is a
failed check that says how much is missing. Why each bound is what it is: docs/gate.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from core.report import Interval, PreferenceFigures, Report, RewardFigures, SystemFigures
from core.sections import GateSettings

OFTEN_WRONG = 0.25
"""The share of a person's votes that are wrong above which one counts for less than half."""


@dataclass(frozen=True, slots=True)
class Check:
    """One figure against one bound.

    `name` is stable, for programs; `figure`, `value` and `bound` are for a table; `why` is the rest
    of a sentence that begins "Refused:", without its full stop, and empty for a check that passed.
    """

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
        """The checks that did not pass, the weightiest first."""
        return tuple(check for check in self.checks if not check.passed)


def judge(report: Report, bounds: GateSettings) -> Verdict:
    """Return the verdict on a report; the same report and bounds always give the same verdict."""
    checks = _data_checks(report.preference, bounds)
    if report.reward is not None:
        checks += _reward_checks(report.reward, bounds)
    elif report.preference is not None and all(check.passed for check in checks):
        checks += _preference_checks(report.preference, bounds)
    checks += _system_checks(report, bounds)
    checks = [replace(check, why="") if check.passed else check for check in checks]
    failed = [check for check in checks if not check.passed]
    summary = (_refusal(failed) if failed else _acceptance(report)) + _of_people(report)
    return Verdict(accepted=not failed, checks=tuple(checks), summary=summary)


def _refusal(failed: list[Check]) -> str:
    reasons = "; also, ".join(check.why for check in failed[:2])
    more = f"; {len(failed) - 2} more bounds are broken" if len(failed) > 2 else ""
    return f"Refused: {reasons}{more}."


def _acceptance(report: Report) -> str:
    figures = report.preference
    if figures is None:  # cannot be: no held-out feedback is a failed check
        raise ValueError("a report without held-out feedback was accepted")
    if (found := report.reward) is not None:
        return (
            f"Accepted: {found.tested or found.accuracy.n} votes and pairs agree on something "
            f"(luck would foretell them as well {_percent(found.p_value)} of the time), new "
            "replies hold more of what they ask for, and the adapter keeps every other bound."
        )
    return (
        f"Accepted: on {_rows(figures)} the adapter orders {figures.accuracy.value:.0%} of "
        "comparisons as people voted (50% is chance), and it keeps every other bound."
    )


def _of_people(report: Report) -> str:
    """Tell how many people's word was turned round or counts for little; their names are in the
    report alone.
    """
    if (found := report.reward) is None:
        return ""
    told = ""
    if count := len(found.contrary):
        told += f" {_people(count)} contradicted everybody else; what they said was learnt from"
        told += " the other way round."
    if count := sum(share > OFTEN_WRONG for share in found.wrong.values()):
        told += f" What {_people(count)} said hardly agrees with what all others say;"
        told += " it counts for less than half."
    return told


def _people(count: int) -> str:
    return "1 person" if count == 1 else f"{count} people"


def _data_checks(figures: PreferenceFigures | None, bounds: GateSettings) -> list[Check]:
    """Is there enough held-out feedback to say anything?"""
    up, down, pairs, people = (
        (figures.liked, figures.disliked, figures.pairs, figures.people)
        if figures
        else (0, 0, 0, 0)
    )
    rows = up + down + pairs
    few = (
        f"only {rows} held-out votes and pairs to test on; "
        f"{bounds.min_held_out - rows} more are needed"
        if rows
        else f"there is no held-out feedback to test on; at least {bounds.min_held_out} are needed"
    )
    return [
        Check(
            name="held_out",
            figure="held-out votes and pairs",
            value=str(rows),
            bound=f"at least {bounds.min_held_out}",
            passed=rows >= bounds.min_held_out,
            why=few,
        ),
        Check(
            name="people",
            figure="people behind them",
            value=str(people),
            bound=f"at least {bounds.min_people}",
            passed=people >= bounds.min_people,
            why=f"the held-out feedback comes from {people} people; "
            f"{bounds.min_people - people} more are needed",
        ),
        _sides_check(up, down, pairs, bounds),
    ]


def _sides_check(up: int, down: int, pairs: int, bounds: GateSettings) -> Check:
    side, count = ("liked", up) if up <= down else ("disliked", down)
    least = bounds.min_each_side
    return Check(
        name="both_sides",
        figure="liked, disliked, pairs",
        value=f"{up}, {down}, {pairs}",
        bound=f"{least} of both thumbs, or {bounds.min_held_out} pairs",
        passed=count >= least or pairs >= bounds.min_held_out,
        why=f"only {count} held-out replies are {side}; {least - count} more are needed to compare "
        "the two sides",
    )


def _preference_checks(figures: PreferenceFigures, bounds: GateSettings) -> list[Check]:
    """Does the candidate order replies as people did, beyond luck, no worse than the live one?"""
    rows, own = _rows(figures), figures.accuracy
    luck = _luck_check(
        figures.p_value,
        bounds,
        figure="how often luck would order them as well",
        lucky=f"on {rows} the adapter orders replies no better than luck could "
        f"(accuracy {_shown(own)}; ",
    )
    accuracy = Check(
        name="accuracy",
        figure="comparisons in the order people voted",
        value=f"{own.value:.2f} ({own.low:.2f} to {own.high:.2f})",
        bound=f"at least {bounds.min_accuracy:.2f}",
        passed=own.value >= bounds.min_accuracy,
        why=f"on {rows} the adapter orders too few comparisons as people voted ({_shown(own)}; at "
        f"least {bounds.min_accuracy:.2f} is asked, 0.50 is chance)",
    )
    return [luck, accuracy, *_live_checks(figures)]


def _reward_checks(found: RewardFigures, bounds: GateSettings) -> list[Check]:
    """Do the votes say anything, and does the candidate say more of what they ask for?

    A candidate that learnt from ranked replies to one prompt does not order replies to different
    prompts; what the votes say is tested on all of them instead. Their accuracy is not: where most
    likes are errors, a reward that knows the taste orders them no better than chance
    (docs/gate.md).
    """
    checks = [
        _luck_check(
            found.p_value,
            bounds,
            figure="how often luck would foretell the votes as well",
            lucky=f"nothing in {found.tested or found.accuracy.n} votes and pairs foretells the "
            "others better than luck could (",
        )
    ]
    gain, live = found.gain, found.over_live
    rise = _change(gain) if gain else "not measured"
    checks.append(
        Check(
            name="gain",
            figure="what people ask for, in new replies, log-odds",
            value=rise,
            bound=f"clearly above {bounds.min_gain:g}",
            passed=gain is not None and gain.low > bounds.min_gain,
            why="the adapter's replies to held-out questions hold no more of what people asked "
            f"for than the base's ({rise})",
        )
    )
    if live is None:
        return checks
    why = f"the live adapter's replies hold more of what people ask for ({_change(live)})"
    return [*checks, _over_live(live, why)]


def _luck_check(p: float, bounds: GateSettings, *, figure: str, lucky: str) -> Check:
    return Check(
        name="luck",
        figure=figure,
        value=_percent(p),
        bound=f"at most {_percent(bounds.max_p_value)}",
        passed=p <= bounds.max_p_value,
        why=f"{lucky}luck does as well {_percent(p)} of the time, and at most "
        f"{_percent(bounds.max_p_value)} is let through)",
    )


def _shown(own: Interval) -> str:
    return f"{own.value:.2f}, interval {own.low:.2f} to {own.high:.2f}"


def _over_live(change: Interval, why: str) -> Check:
    return Check(
        name="over_live",
        figure="the same, minus the live adapter's",
        value=_change(change),
        bound="not clearly below 0",
        passed=change.high >= 0,
        why=why,
    )


def _change(change: Interval) -> str:
    return f"{change.value:+.2f} ({change.low:+.2f} to {change.high:+.2f})"


def _live_checks(figures: PreferenceFigures) -> list[Check]:
    change = figures.over_live
    if change is None:
        return []
    why = (
        f"the live adapter orders held-out replies better, by {-change.value:.2f} "
        f"(interval {-change.high:.2f} to {-change.low:.2f})"
    )
    return [_over_live(change, why)]


def _system_checks(report: Report, bounds: GateSettings) -> list[Check]:
    """Is what the model could do before still there?"""
    own, base = report.systems["candidate"], report.systems["base"]
    before = report.systems[report.reference]
    return [
        _keep_check(own, before, report.reference, bounds.max_keep_drop),
        _at_most(
            "perplexity",
            "perplexity on plain text, times the base's",
            own.perplexity / base.perplexity,
            bounds.max_perplexity_ratio,
            "the adapter damaged the model: perplexity on plain text is {} times the base's",
        ),
        _at_most(
            "kl",
            "distance from the base, nats a token",
            own.kl_to_base,
            bounds.max_kl,
            "the adapter went too far from the base: {} nats a token",
        ),
        _length_check(own, before, report.reference, bounds.max_length_ratio),
        _at_most(
            "repetition",
            f"repeated 4-grams, more than the {report.reference}",
            own.repetition - before.repetition,
            bounds.max_repetition_rise,
            "replies repeat themselves more: the share of repeated 4-grams rose by {}",
        ),
        _at_most(
            "empty",
            "empty replies",
            own.empty,
            bounds.max_empty,
            "the share of empty replies is {}",
        ),
    ]


def _at_most(name: str, figure: str, value: float, bound: float, why: str) -> Check:
    """A check that refuses values over the bound, and NaN."""
    reason = f"{why.format(f'{value:.3f}')}; at most {bound:g} is allowed"
    return Check(name, figure, f"{value:.3f}", f"at most {bound:g}", value <= bound, reason)


def _keep_check(own: SystemFigures, before: SystemFigures, name: str, most: float) -> Check:
    return Check(
        name="keep_set",
        figure=f"keep-set passed (the {name}: {before.keep_score:.2f})",
        value=f"{own.keep_score:.2f}",
        bound=f"at least {max(0.0, before.keep_score - most):.2f}",
        passed=before.keep_score - own.keep_score <= most + 1e-9,
        why=f"the adapter forgot: it passes {own.keep_score:.0%} of the keep-set, the {name} "
        f"{before.keep_score:.0%}; a fall of {most:.0%} is the most",
    )


def _length_check(own: SystemFigures, before: SystemFigures, name: str, most: float) -> Check:
    """A check on the ratio of median lengths, either way; a reply counts as one word at least."""
    was, is_now = max(1.0, before.median_words), max(1.0, own.median_words)
    return Check(
        name="length",
        figure=f"median words of a reply (the {name}: {before.median_words:g})",
        value=f"{own.median_words:g}",
        bound=f"{was / most:.0f} to {was * most:.0f}",
        passed=1 / most <= is_now / was <= most,
        why=f"replies went from {before.median_words:g} to {own.median_words:g} words in the "
        f"median; a factor of {most:g} is the most",
    )


def _rows(figures: PreferenceFigures) -> str:
    votes = figures.liked + figures.disliked
    parts = [f"{votes} held-out votes"] if votes else []
    parts += [f"{figures.pairs} held-out pairs"] if figures.pairs else []
    return " and ".join(parts)


def _percent(share: float) -> str:
    """Write a share as a percentage; small ones with one decimal, tiny ones as a limit."""
    if share < 0.001:
        return "under 0.1%"
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"
