"""Charts for Discord: real PNGs, the same each time, from any thread."""

from __future__ import annotations

import asyncio
import struct
import subprocess
import sys
import time

import pytest

from bot.discord.charts import _points as points
from bot.discord.charts import _running_steps as running_steps
from bot.discord.charts import likes_chart, training_chart
from core.jobs import Progress


def line(
    step: int, *, stage: str = "kto", loss: float | None = 0.5, margin: float | None = None
) -> Progress:
    """A line of progress at a step of 20."""
    return Progress(
        at="", stage=stage, step=step, steps=20, fraction=step / 20, loss=loss, margin=margin
    )


COURSE = [line(step, loss=1 / step, margin=step / 10) for step in range(1, 21)]


def pixels(png: bytes) -> tuple[int, int]:
    """Width and height from the PNG's header."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    return width, height


@pytest.mark.parametrize(
    "progress",
    [[], COURSE[:1], COURSE, [line(1, loss=None)], [line(1, loss=float("nan")), line(2)]],
)
def test_a_course_of_any_length_is_drawn(progress: list[Progress]) -> None:
    """Nothing yet, one point, two curves, no value, no number: each is a picture of one size."""
    assert pixels(training_chart(progress, title="home@v3")) == (640, 240)


def test_each_curve_that_has_values_is_seen() -> None:
    """No steps, loss alone and loss with margin are three different pictures."""
    alone = [entry.model_copy(update={"margin": None}) for entry in COURSE]
    assert len({training_chart(rows, title="t") for rows in ([], alone, COURSE)}) == 3


def test_a_title_is_text_and_not_a_formula() -> None:
    """Dollars and braces in a name cannot make the picture fail."""
    assert pixels(training_chart(COURSE, title="$\\frac{$ v1"))
    assert pixels(likes_chart([("$\\frac{$@v1", 1, 2)]))


def test_later_stages_go_on_and_repeated_steps_count_once() -> None:
    """A stage that counts from 1 again is appended; after a crash the newer value stands."""
    two_stages = [line(1), line(2), line(1, stage="dpo"), line(2, stage="dpo")]
    assert running_steps(two_stages) == [1, 2, 3, 4]
    assert running_steps([line(1), line(2), line(3, stage="dpo")]) == [1, 2, 3]
    assert points([1, 2, 2, 3], [0.9, 0.8, 0.7, None]) == [(1, 0.9), (2, 0.7)]


@pytest.mark.parametrize("count", [0, 1, 4, 40])
def test_likes_are_drawn_for_any_number_of_adapters(count: int) -> None:
    """None, few and more than can be shown; an adapter without votes too."""
    width, height = pixels(likes_chart([(f"home@v{n}", n, 3 * (n % 2)) for n in range(count)]))
    assert width == 640
    assert 240 <= height <= 640


async def test_threads_draw_the_same_bytes() -> None:
    """Eight at a time give what one gives."""
    alone = training_chart(COURSE, title="t")
    drawn = await asyncio.gather(
        *(asyncio.to_thread(training_chart, COURSE, title="t") for _ in range(8))
    )
    assert set(drawn) == {alone}


def test_a_warm_chart_is_quick() -> None:
    """Well under the time a person waits for; processor time, since the machine is shared."""
    training_chart(COURSE, title="t")
    start = time.thread_time()
    training_chart(COURSE, title="t")
    assert time.thread_time() - start < 0.3


def test_importing_charts_brings_no_matplotlib() -> None:
    """The import costs nothing until a chart is asked for."""
    code = "import sys, bot.discord.charts; print('matplotlib' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
