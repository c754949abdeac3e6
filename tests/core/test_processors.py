"""Whose processor it is, as Linux tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.processors import processor_maker


@pytest.mark.parametrize(
    ("told", "maker"),
    [
        ("processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\n", "AuthenticAMD"),
        ("processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd bf16\n", ""),
        ("", ""),
    ],
)
def test_the_maker_is_what_the_system_tells(told: str, maker: str, tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(told, encoding="utf-8")
    assert processor_maker(file) == maker


def test_where_nothing_is_told_nobody_is_named(tmp_path: Path) -> None:
    assert processor_maker(tmp_path / "cpuinfo") == ""
