"""The report: what finished cells, series and checks found, as tables and pictures of
docs/learning.md.

Pure functions of figures, but for the three that write a part of the page. Trains and draws
nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from benchmarks.learning.cells import Cell
from benchmarks.learning.grid import ALL_ARMS, Found
from benchmarks.learning.instructions import Basis
from benchmarks.learning.measure import Figures, by_arm, mean_interval
from benchmarks.learning.page import PAGE, write_part
from benchmarks.learning.person import Membership
from benchmarks.learning.plots import Bar, bars_picture, lines_picture, points_picture
from benchmarks.learning.series import RunFigures
from benchmarks.learning.tastes import TASTES
from benchmarks.results import aligned
from core.intervals import wilson
from core.report import Interval

ATTACKS = ("loud", "planted")
CHANCE = "shuffled"
MAIN_ARM = "votes-240"

Cells = Mapping[Cell, Figures]
Value = Callable[[Figures], float]


def write_report(found: Found, basis: Basis | None = None, *, page: Path = PAGE) -> None:
    """Write the part `figures` and its pictures from all finished cells.

    `basis` is what IFEval asked, if it did.
    """
    if not found:
        raise SystemExit("no finished cells; run python -m benchmarks.learning first")
    arms = _ordered(by_arm(found))
    seeds = sorted({cell.seed for cell in found})
    lines = [
        f"{len(found)} cells, seeds {', '.join(map(str, seeds))}. Intervals are 95 % bootstrap "
        "intervals: of a cell over its prompts, of an arm over its cells.",
        "",
        "![Like-rates by arm](learning-arms.svg)",
        "",
        *_section("How many replies are liked", likes_table(arms)),
        "![Like-rates by taste](learning-tastes.svg)",
        "",
        "![Like-rates by votes](learning-votes.svg)",
        "",
        *_section("What it costs", [*costs_table(arms), "", instructed_sentence(basis, found)]),
        "![What is won against what is lost](learning-costs.svg)",
        "",
        *_section("The gate", [*gate_table(arms), "", *gate_sentences(found)]),
        "<details>",
        "<summary>Every cell</summary>",
        "",
        *cells_table(arms),
        "",
        "</details>",
    ]
    write_part("figures", lines, pictures(arms), page=page)


def write_series(found: Sequence[RunFigures], old: str, new: str, *, page: Path = PAGE) -> None:
    """Write the part `drift`, its picture beside it, from a series."""
    if not found:
        raise SystemExit("no finished runs; run python -m benchmarks.drift first")
    curves = {
        f"likes: {old}": [(one.run, one.old) for one in found],
        f"likes: {new}": [(one.run, one.new) for one in found],
        "keep-set": [(one.run, one.keep) for one in found],
        "KL": [(one.run, one.kl) for one in found],
        "repetition": [(one.run, one.repetition) for one in found],
    }
    title = f"Retrainings in a row, while the taste goes from {old} to {new}"
    most = max(1.05, *(1.05 * one.kl for one in found))
    picture = lines_picture(curves, title=title, along="run", most=most, bold="keep-set")
    lines = [f"From *{old}* to *{new}*.", "", "![Drift](learning-drift.svg)", ""]
    lines += series_table(found)
    write_part("drift", lines, {"learning-drift.svg": picture}, page=page)


def likes_table(arms: Mapping[str, Cells]) -> list[str]:
    """Base → after by arm and taste, means over seeds; the arm's mean with its interval."""
    body = []
    for arm, cells in arms.items():
        low, high = mean_interval([one.like for one in cells.values()])
        row = [_change(_of_taste(cells, taste), lambda o: o.base_like, _like) for taste in TASTES]
        mean = _change(cells.values(), lambda o: o.base_like, _like)
        body.append([arm, *row, mean, f"{low:.2f} to {high:.2f}"])
    return aligned(("arm", *TASTES, "mean", "interval"), body)


def costs_table(arms: Mapping[str, Cells]) -> list[str]:
    """What was there before and what is there after, by arm: means over cells."""
    body = []
    for arm, cells in arms.items():
        ones = list(cells.values())
        asked = [one for one in ones if one.ifeval is not None]
        drawn = [one for one in ones if one.answered is not None]
        body.append(
            [
                arm,
                _change(ones, lambda o: o.base_keep, lambda o: o.keep),
                f"{min(one.keep for one in ones):.2f}",
                _change(drawn, lambda o: o.base_answered or 0.0, lambda o: o.answered or 0.0, 3),
                _change(asked, lambda o: o.base_ifeval or 0.0, lambda o: o.ifeval or 0.0),
                _change(ones, lambda o: o.base_repetition, lambda o: o.repetition, 3),
                _change(ones, lambda o: o.base_words, lambda o: o.words, 0),
                f"{fmean(one.kl for one in ones):.3f}",
                f"{max(one.kl for one in ones):.3f}",
                f"{fmean(one.perplexity_ratio for one in ones):.3f}",
            ]
        )
    head = (
        "arm", "keep-set", "lowest", "drawn", "IFEval", "repetition", "words", "KL", "highest",
        "perplexity ratio",
    )  # fmt: skip
    return aligned(head, body)


def gate_table(arms: Mapping[str, Cells]) -> list[str]:
    """How many of an arm's cells the gate accepted, and by which checks it refused the others."""
    body = []
    for arm, cells in arms.items():
        accepted = sum(one.accepted for one in cells.values())
        failed = Counter(
            name for one in cells.values() if not one.accepted for name in one.failed.split(", ")
        )
        why = ", ".join(f"{name} {count}" for name, count in failed.most_common()) or "-"
        body.append([arm, f"{accepted} of {len(cells)}", _wilson(accepted, len(cells)), why])
    return aligned(("arm", "accepted", "95 %", "refused by"), body)


def gate_sentences(found: Cells) -> list[str]:
    """Say what share of honest cells was accepted and what share of shuffled ones refused."""
    kinds = {cell: cell.arm.partition("-")[0] for cell in found}
    honest = [one.accepted for cell, one in found.items() if kinds[cell] not in (*ATTACKS, CHANCE)]
    chance = [not one.accepted for cell, one in found.items() if kinds[cell] == CHANCE]
    return [
        f"* {who}: {_share(hits)} {what}."
        for who, hits, what in (
            ("Honest communities", honest, "accepted"),
            ("Shuffled votes", chance, "refused"),
        )
        if hits
    ]


def instructed_sentence(basis: Basis | None, found: Cells) -> str:
    """Say what the figure IFEval stands on, and what would pass without following anything."""
    if all(one.ifeval is None for one in found.values()):
        return "IFEval was not asked of these adapters."
    if basis is None:
        return ""
    return (
        f"IFEval: the {basis.asked} of {basis.of} easy prompts that the base passes in every "
        f"trial; a bare echo of the prompt passes {basis.echo:.2f} of them, one short sentence "
        f"{basis.short:.2f}."
    )


def cells_table(arms: Mapping[str, Cells]) -> list[str]:
    """Every cell with its interval, the base beside it."""
    body = [
        [
            arm,
            cell.taste,
            str(cell.seed),
            f"{one.base_like:.2f} ({one.base_like_low:.2f} to {one.base_like_high:.2f})",
            f"{one.like:.2f} ({one.like_low:.2f} to {one.like_high:.2f})",
            f"{one.base_keep:.2f} → {one.keep:.2f}",
            "-" if one.answered is None else f"{one.base_answered:.2f} → {one.answered:.2f}",
            "-" if one.ifeval is None else f"{one.base_ifeval:.2f} → {one.ifeval:.2f}",
            f"{one.base_repetition:.3f} → {one.repetition:.3f}",
            f"{one.base_words:.0f} → {one.words:.0f}",
            f"{one.kl:.3f}",
            "accepted" if one.accepted else f"refused: {one.failed}",
        ]
        for arm, cells in arms.items()
        for cell, one in cells.items()
    ]
    head = (
        "arm", "taste", "seed", "base", "liked", "keep-set", "drawn", "IFEval", "repetition",
        "words", "KL", "gate",
    )  # fmt: skip
    return aligned(head, body)


def series_table(found: Sequence[RunFigures]) -> list[str]:
    """Each run of a series; the base is the first row."""
    body = [
        [
            str(one.run) if one.run else "base",
            str(one.votes),
            f"{one.turned:.0%}",
            f"{one.old:.2f} ({one.old_low:.2f} to {one.old_high:.2f})",
            f"{one.new:.2f} ({one.new_low:.2f} to {one.new_high:.2f})",
            f"{one.like:.2f}",
            f"{one.keep:.2f}",
            f"{one.repetition:.3f}",
            f"{one.words:.0f}",
            f"{one.kl:.3f}",
            one.live or "-",
            ("accepted" if one.accepted else f"refused: {one.failed}") if one.run else "-",
        ]
        for one in found
    ]
    head = (
        "run", "votes", "gone over", "old taste", "new taste", "liked", "keep-set", "repetition",
        "words", "KL", "live before", "gate",
    )  # fmt: skip
    return aligned(head, body)


def membership_table(found: Membership) -> list[str]:
    """Log-likelihood a token of the corrections under each, and the two differences."""
    rows = [
        ("base", found.base, None),
        ("(a) learnt with the person", found.with_them, None),
        ("(b) after they were forgotten", found.after, None),
        ("(c) never saw them", found.never, None),
        ("(a) - (c)", found.known.value, found.known),
        ("(b) - (c)", found.left.value, found.left),
    ]
    body = [[name, f"{value:.3f}", _interval(interval)] for name, value, interval in rows]
    return aligned((f"{found.corrections} corrections", "nats a token", "95 %"), body)


def pictures(arms: Mapping[str, Cells]) -> dict[str, str]:
    """Return the pictures of the part `figures` by file name."""
    main = arms.get(MAIN_ARM) or next(iter(arms.values()))
    name = MAIN_ARM if MAIN_ARM in arms else next(iter(arms))
    found = {cell: one for cells in arms.values() for cell, one in cells.items()}
    gains = {
        verdict: [
            (one.like - one.base_like, one.keep)
            for one in found.values()
            if one.accepted == (verdict == "accepted")
        ]
        for verdict in ("accepted", "refused")
    }
    return {
        "learning-arms.svg": bars_picture(
            [_bar(arm, cells.values()) for arm, cells in arms.items()],
            title="Liked replies to unseen prompts, mean over tastes (grey: the base)",
        ),
        "learning-tastes.svg": bars_picture(
            [_bar(taste, _of_taste(main, taste)) for taste in TASTES if _of_taste(main, taste)],
            title=f"Liked replies to unseen prompts by taste, {name} (grey: the base)",
        ),
        "learning-votes.svg": lines_picture(
            _by_votes(arms), title="Liked replies by votes", along="votes", bold="mean"
        ),
        "learning-costs.svg": points_picture(
            gains,
            title="What is won against what is lost, cell by cell",
            along="like-rate over the base's",
            up="keep-set passed",
            bad="refused",
        ),
    }


def _by_votes(arms: Mapping[str, Cells]) -> dict[str, list[tuple[float, float]]]:
    """Like-rates over the number of votes, by taste and in the mean; the base stands at none."""
    plain = {
        int(arm.removeprefix("votes-")): cells
        for arm, cells in arms.items()
        if arm.removeprefix("votes-").isdigit()
    }
    if not plain:
        return {}
    every = [one for cells in plain.values() for one in cells.values()]
    curves = {"mean": [(0.0, fmean(one.base_like for one in every))]}
    curves["mean"] += [
        (votes, fmean(one.like for one in plain[votes].values())) for votes in sorted(plain)
    ]
    for taste in TASTES:
        points = [
            (float(votes), fmean(map(_like, of)))
            for votes in sorted(plain)
            if (of := _of_taste(plain[votes], taste))
        ]
        if points:
            before = fmean(
                one.base_like for cells in plain.values() for one in _of_taste(cells, taste)
            )
            curves[taste] = [(0.0, before), *points]
    return curves


def _ordered(arms: dict[str, dict[Cell, Figures]]) -> dict[str, dict[Cell, Figures]]:
    """Put arms in the order of their list, other recipes after the default one."""

    def place(arm: str) -> tuple[str, int]:
        name, _, variant = arm.partition("@")
        return variant, ALL_ARMS.index(name) if name in ALL_ARMS else len(ALL_ARMS)

    return {arm: arms[arm] for arm in sorted(arms, key=place)}


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"### {title}", "", *lines, ""]


def _of_taste(cells: Cells, taste: str) -> list[Figures]:
    return [one for cell, one in cells.items() if cell.taste == taste]


def _like(one: Figures) -> float:
    return one.like


def _change(ones: Iterable[Figures], before: Value, after: Value, digits: int = 2) -> str:
    listed = list(ones)
    if not listed:
        return "-"
    return " → ".join(f"{fmean(map(of, listed)):.{digits}f}" for of in (before, after))


def _bar(name: str, ones: Iterable[Figures]) -> Bar:
    """Return the mean of cells; of one cell the interval over its prompts."""
    listed = list(ones)
    likes = [one.like for one in listed]
    low, high = mean_interval(likes)
    if len(listed) == 1:
        low, high = listed[0].like_low, listed[0].like_high
    return Bar(name, fmean(one.base_like for one in listed), fmean(likes), low, high)


def _share(hits: Sequence[bool]) -> str:
    return f"{sum(hits)} of {len(hits)} ({_wilson(sum(hits), len(hits))})"


def _wilson(won: int, count: int) -> str:
    low, high = wilson(won, count)
    return f"{low:.2f} to {high:.2f}"


def _interval(found: Interval | None) -> str:
    return "" if found is None else f"{found.low:.3f} to {found.high:.3f}"
