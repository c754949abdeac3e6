"""docs/learning.md: its text is written by hand, its figures are put between markers.

A part begins with `<!-- NAME: begin -->` and ends with `<!-- NAME: end -->`; what is written anew
replaces what is between them, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from core.files import write_atomic

PAGE = Path(__file__).parents[2] / "docs" / "learning.md"


def write_part(
    name: str,
    lines: Sequence[str],
    pictures: Mapping[str, str] | None = None,
    *,
    page: Path = PAGE,
) -> None:
    """Replace a part of the page, and the pictures beside it (SVG by file name).

    Raises ValueError where the page has no such part.
    """
    text = page.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    found = re.search(rf"{re.escape(begin)}\n.*?{re.escape(end)}", text, re.DOTALL)
    if found is None:
        raise ValueError(f"{page}: has no part {begin} … {end}; put these two lines into it")
    for file, svg in (pictures or {}).items():
        write_atomic(page.with_name(file), svg)
    part = "\n".join([begin, "", *lines, "", end])
    write_atomic(page, text[: found.start()] + part + text[found.end() :])
