"""Pictures for Discord: a training run's course, and how liked each adapter is.

A chart is a pure function of its figures: the same in, the same PNG bytes out. Drawn without
matplotlib's global state and under one lock, so that any thread may ask. Does not know runs or
votes; matplotlib is imported with the first chart.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING

from core.intervals import wilson
from core.jobs import Progress

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN = 6.4
HEIGHT_IN = 2.4
DPI = 100
ROWS_SHOWN = 12
"""More bars than a phone can show are not drawn: the last ones (the newest) stay."""

_BACKGROUND = "#1e1f22"
_PANEL = "#2b2d31"
_GRID = "#3f4147"
_TEXT = "#dbdee1"
_FAINT = "#949ba4"
_LOSS = "#5ac8fa"
_MARGIN = "#57d08b"
_RENDERING = Lock()
"""matplotlib's fonts are shared between figures and are not made for threads."""

_Points = list[tuple[int, float]]


def training_chart(progress: Sequence[Progress], *, title: str) -> bytes:
    """Loss and margin over steps as a PNG of 640x240 pixels; a curve without values is left out.

    Steps of a later stage go on where the stage before ended.
    """
    steps = _running_steps(progress)
    curves = [
        ("loss", _LOSS, _points(steps, [line.loss for line in progress])),
        ("margin", _MARGIN, _points(steps, [line.margin for line in progress])),
    ]
    drawn = [curve for curve in curves if curve[2]]
    with _RENDERING:
        figure = _figure(title, HEIGHT_IN)
        for index, (name, color, points) in enumerate(drawn, start=1):
            _curve(figure.add_subplot(1, len(drawn), index), name, color, points)
        if not drawn:
            _empty(figure.add_subplot(), "no steps yet")
        return _png(figure)


def likes_chart(rates: Sequence[tuple[str, int, int]]) -> bytes:
    """Like-rates of (adapter, up, down) as bars with their 95 % Wilson interval, a PNG."""
    rows = rates[-ROWS_SHOWN:]
    with _RENDERING:
        figure = _figure("liked replies, 95 % interval", max(HEIGHT_IN, 0.9 + 0.36 * len(rows)))
        panel = figure.add_subplot()
        if rows:
            _bars(panel, rows)
        else:
            _empty(panel, "no votes yet")
        return _png(figure)


def _running_steps(progress: Sequence[Progress]) -> list[int]:
    before = last = 0
    stage = progress[0].stage if progress else ""
    steps = []
    for line in progress:
        if line.stage != stage and line.step < last - before:
            before = last
        stage = line.stage
        last = before + line.step
        steps.append(last)
    return steps


def _points(steps: list[int], values: list[float | None]) -> _Points:
    """A finite value for each step; a step done again after a crash has its last value."""
    pairs = zip(steps, values, strict=True)
    known = {step: value for step, value in pairs if value is not None and math.isfinite(value)}
    return sorted(known.items())


def _figure(title: str, height_in: float) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.07)
    figure = Figure(figsize=(WIDTH_IN, height_in), dpi=DPI, layout=layout)
    figure.suptitle(
        title, color=_TEXT, fontsize=10, fontweight="bold", x=0.02, ha="left", parse_math=False
    )
    return figure


def _png(figure: Figure) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    file = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(file, format="png", facecolor=_BACKGROUND, metadata={"Software": None})
    return file.getvalue()


def _panel(panel: Axes) -> None:
    panel.set_facecolor(_PANEL)
    panel.tick_params(colors=_FAINT, labelsize=8, length=0)
    panel.grid(color=_GRID, linewidth=0.6)
    panel.set_axisbelow(True)
    for spine in panel.spines.values():
        spine.set_visible(False)


def _curve(panel: Axes, name: str, color: str, points: _Points) -> None:
    from matplotlib.ticker import MaxNLocator

    _panel(panel)
    steps, values = [step for step, _ in points], [value for _, value in points]
    panel.plot(steps, values, color=color, linewidth=1.8, solid_capstyle="round")
    panel.plot(steps[-1:], values[-1:], "o", color=color, markersize=5)
    panel.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    panel.yaxis.set_major_locator(MaxNLocator(nbins=4))
    panel.margins(x=0.03, y=0.12)
    panel.set_title(name, color=_TEXT, fontsize=9, loc="left")
    panel.set_title(f"{values[-1]:.3g}", color=color, fontsize=9, fontweight="bold", loc="right")
    panel.set_xlabel("step", color=_FAINT, fontsize=8)


def _bars(panel: Axes, rows: Sequence[tuple[str, int, int]]) -> None:
    _panel(panel)
    panel.grid(visible=False, axis="y")
    places = list(range(len(rows)))
    shares = [up / (up + down) if up + down else 0.0 for _, up, down in rows]
    panel.barh(places, shares, color=_MARGIN, height=0.6, alpha=0.75)
    for place, (_, up, down) in enumerate(rows):
        low, high = wilson(up, up + down)
        if up + down:
            panel.plot([low, high], [place, place], color=_TEXT, linewidth=1.4)
            panel.plot([low, high], [place, place], "|", color=_TEXT, markersize=7)
        note = f"{up} of {up + down}" if up + down else "no votes"
        panel.text(1.02, place, note, color=_FAINT, fontsize=8, va="center")
    panel.set_yticks(places, [_short(name) for name, _, _ in rows], parse_math=False)
    panel.tick_params(axis="y", colors=_TEXT)
    panel.set_xlim(0, 1)
    panel.set_ylim(max(len(rows), 3) - 0.4, -0.6)
    panel.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])


def _empty(panel: Axes, words: str) -> None:
    _panel(panel)
    panel.set_xticks([])
    panel.set_yticks([])
    panel.text(
        0.5,
        0.5,
        words,
        color=_FAINT,
        fontsize=11,
        ha="center",
        va="center",
        transform=panel.transAxes,
    )


def _short(name: str) -> str:
    """The name's end, where the version stands."""
    return name if len(name) <= 24 else "…" + name[-23:]
