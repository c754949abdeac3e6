"""Identifiers: all different, in the order of time, found by one pattern."""

from __future__ import annotations

import re

from core.records import ID_DIGITS, new_id


def test_identifiers_sort_by_the_second_they_were_made() -> None:
    """A thousand of one second are all different; a later one comes after each of them."""
    made = {new_id("r", 1_735_689_600.9) for _ in range(1000)}
    assert len(made) == 1000
    assert max(made) < new_id("r", 1_735_689_601.0) < new_id("r")


def test_the_pattern_finds_identifiers_of_this_version_and_of_earlier_ones() -> None:
    """Buttons under old messages go on working."""
    for identity in (new_id("r"), "r_4f9c0a17b2d3e4f5"):
        assert re.fullmatch(rf"r_{ID_DIGITS}", identity)
    assert not re.fullmatch(rf"r_{ID_DIGITS}", "r_4f9c")
