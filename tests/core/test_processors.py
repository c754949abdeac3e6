"""What Linux tells of a processor."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.processors import told

X86 = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: EPYC\nflags\t\t: fpu vme\n"
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd bf16\n"


@pytest.mark.parametrize(
    ("text", "names", "value"),
    [
        (X86, ["vendor_id"], "AuthenticAMD"),
        (X86, ["model name"], "EPYC"),
        (X86, ["flags", "Features"], "fpu vme"),
        (ARM, ["flags", "Features"], "fp asimd bf16"),
        (ARM, ["vendor_id"], ""),
        ("", ["vendor_id"], ""),
    ],
)
def test_a_line_is_found_by_its_name(
    text: str, names: list[str], value: str, tmp_path: Path
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(text, encoding="utf-8")
    assert told(*names, source=file) == value


def test_where_there_is_no_such_file_nothing_is_told(tmp_path: Path) -> None:
    assert told("vendor_id", source=tmp_path / "cpuinfo") == ""
