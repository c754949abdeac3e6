"""Pictures of docs/learning.md: small SVGs, each a pure function of its figures.

The same figures give the same bytes, so that a report made anew changes nothing where nothing
changed. Text stays text. Knows no cells, files or clock; matplotlib is imported with the first
picture.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes

WIDTH_IN = 6.4
_TEXT, _FAINT, _GRID = "#24292f", "#6e7781", "#d8dee4"
_BASE, _AFTER, _BAD = "#8c959f", "#1a7f37", "#cf222e"
_LINES = ("#0969da", "#bf3989", "#9a6700", "#8250df", "#1b7c83", "#bc4c00")
_SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "thumbtune",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 8.5,
    "axes.unicode_minus": False,
    "text.color": _TEXT,
    "axes.labelcolor": _FAINT,
    "xtick.color": _FAINT,
    "ytick.color": _TEXT,
}


@dataclass(frozen=True, slots=True)
class Bar:
    """A share with its interval, and what it was before."""

    name: str
    before: float
    value: float
    low: float
    high: float


Points = Sequence[tuple[float, float]]


def bars_picture(rows: Sequence[Bar], *, title: str) -> str:
    """Shares in [0, 1] as bars from top to bottom: before in grey, after with its interval."""
    with _panel(max(1.2, 0.55 + 0.32 * len(rows)), title) as (panel, written):
        for place, row in enumerate(rows):
            panel.barh(place, row.value, color=_AFTER, height=0.55, alpha=0.8)
            panel.plot([row.low, row.high], [place, place], color=_TEXT, linewidth=1.2)
            panel.plot([row.before] * 2, [place - 0.36, place + 0.36], color=_BASE, linewidth=2.6)
            note = f"{row.before:.2f} → {row.value:.2f}"
            panel.text(1.02, place, note, color=_FAINT, va="center")
        panel.set_yticks(range(len(rows)), [row.name for row in rows], parse_math=False)
        panel.set_ylim(len(rows) - 0.4, -0.6)
        panel.set_xlim(0, 1)
        panel.grid(visible=False, axis="y")
    return written()


def lines_picture(
    lines: Mapping[str, Points], *, title: str, along: str, most: float = 1.0, bold: str = ""
) -> str:
    """Curves over a common axis, each with its name at its end; `bold` is the one that counts."""
    drawn = {name: points for name, points in lines.items() if points}
    places = _spread({name: points[-1][1] for name, points in drawn.items()}, most / 18)
    with _panel(3.0, title) as (panel, written):
        for number, (name, points) in enumerate(drawn.items()):
            main = name == bold
            color = _TEXT if main else _LINES[number % len(_LINES)]
            xs, ys = zip(*points, strict=True)
            panel.plot(xs, ys, "o-", color=color, linewidth=2.4 if main else 1.3, markersize=3)
            panel.annotate(
                name, (xs[-1], places[name]), (6, 0), textcoords="offset points", color=color,
                va="center",
            )  # fmt: skip
        panel.set_ylim(0, most)
        panel.margins(x=0.02)
        panel.set_xlabel(along)
    return written()


def points_picture(
    groups: Mapping[str, Points], *, title: str, along: str, up: str, bad: str = ""
) -> str:
    """Points of several kinds; the kind `bad` in red."""
    with _panel(2.8, title) as (panel, written):
        for name, points in groups.items():
            if points:
                xs, ys = zip(*points, strict=True)
                color = _BAD if name == bad else _AFTER
                panel.plot(
                    xs, ys, "x" if name == bad else "o", color=color, markersize=4, alpha=0.7,
                    label=name,
                )  # fmt: skip
        if any(groups.values()):
            panel.legend(frameon=False, loc="best")
        panel.set_xlabel(along)
        panel.set_ylabel(up)
    return written()


def _spread(heights: Mapping[str, float], apart: float) -> dict[str, float]:
    """Move names up until none covers another."""
    places: dict[str, float] = {}
    least = 0.0
    for name in sorted(heights, key=lambda name: heights[name]):
        places[name] = max(heights[name], least)
        least = places[name] + apart
    return places


@contextmanager
def _panel(height_in: float, title: str) -> Iterator[tuple[Axes, _Written]]:
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(WIDTH_IN, height_in), layout=ConstrainedLayoutEngine())
        figure.suptitle(title, x=0.02, ha="left", fontweight="bold", parse_math=False)
        panel = figure.add_subplot()
        panel.grid(color=_GRID, linewidth=0.6)
        panel.set_axisbelow(True)
        panel.tick_params(length=0)
        for spine in panel.spines.values():
            spine.set_visible(False)
        written = _Written()
        yield panel, written
        file = io.BytesIO()
        figure.savefig(
            file, format="svg", facecolor="white", metadata={"Date": None, "Creator": None}
        )
        written.text = file.getvalue().decode()


class _Written:
    """The picture, once its panel is closed."""

    def __init__(self) -> None:
        self.text = ""

    def __call__(self) -> str:
        """Return the SVG, without the blanks that matplotlib leaves at ends of lines."""
        return re.sub(r"[ \t]+$", "", self.text, flags=re.MULTILINE)
