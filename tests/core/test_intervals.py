"""The interval of a share, against figures worked out by hand and from the literature."""

from __future__ import annotations

import pytest

from core.intervals import wilson


def test_eight_of_ten() -> None:
    """8 of 10 gives 0.490 to 0.943, as tables of Wilson's interval have it."""
    assert wilson(8, 10) == pytest.approx((0.49016, 0.94332), abs=1e-4)


def test_the_ends_stay_between_nought_and_one() -> None:
    """Without votes nothing is known; none or all of five do not leave the range."""
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 5)[0] == 0.0
    assert wilson(5, 5)[1] == pytest.approx(1.0)
