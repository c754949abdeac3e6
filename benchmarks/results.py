"""How a comparison is shown and kept: a table of rows, the machine, a section in the docs.

A row stands for one figure of ours, the peer's beside it where there is one, their ratio and the
bound wanted of the ratio. What could not be measured is None.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from core.processors import available_cores, told

PERFORMANCE = Path(__file__).parents[1] / "docs" / "performance.md"
_HEAD = ("what", "ours", "peer", "ratio", "bound", "")
_FLAGS = ("avx512_bf16", "avx512_vnni", "amx_bf16")


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison. The bound is `at_least` or `at_most`, or there is none."""

    what: str
    ours: float | None
    peer: float | None = None
    ratio: float | None = None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def bound(self) -> str:
        """Say the bound in words; empty if there is none."""
        if self.at_least is not None:
            return f"at least {self.at_least:g}"
        return "" if self.at_most is None else f"at most {self.at_most:g}"

    @property
    def verdict(self) -> str:
        """Return `ok`, `MISSED`, `not measured`, or nothing where there is no bound."""
        if not self.bound:
            return ""
        if self.ratio is None:
            return "not measured"
        low = self.at_least is None or self.ratio >= self.at_least
        high = self.at_most is None or self.ratio <= self.at_most
        return "ok" if low and high else "MISSED"


def print_table(rows: Sequence[Row]) -> None:
    """Print the rows, aligned."""
    print("\n".join(aligned(_HEAD, _cells(rows))))


def append(title: str, rows: Sequence[Row], more: Sequence[str] = ()) -> None:
    """Add a section to docs/performance.md: title, date, machine, the rows, then the lines `more`.

    To be called where `--record` was given.
    """
    known = PERFORMANCE.read_text(encoding="utf-8") if PERFORMANCE.exists() else "# Performance\n"
    section = [
        f"## {title}",
        "",
        f"{datetime.now(UTC):%Y-%m-%d} (UTC). {machine()}.",
        "",
        *aligned(_HEAD, _cells(rows)),
        *(["", *more] if more else []),
    ]
    PERFORMANCE.write_text(known + "\n" + "\n".join(section) + "\n", encoding="utf-8")


def aligned(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """Return a markdown table whose columns are also aligned as plain text."""
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    lines = [head, ["-" * width for width in widths], *body]
    return [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]


def number(value: float | None) -> str:
    """Show a figure in three digits or so; what was not measured as a dash."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machine() -> str:
    """Describe this machine and what computes on it in one line, without its name."""
    flags = told("flags").split()
    memory = re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text("ascii"))
    return ", ".join(
        [
            told("model name") or "unknown processor",
            f"{available_cores()} cores",
            f"{int(memory[1]) / 2**20:.0f} GiB" if memory else "unknown memory",
            *(f"{flag} {'yes' if flag in flags else 'no'}" for flag in _FLAGS),
            f"torch {version('torch')}",
            f"transformers {version('transformers')}",
        ]
    )


def _cells(rows: Sequence[Row]) -> list[list[str]]:
    return [
        [row.what, number(row.ours), number(row.peer), number(row.ratio), row.bound, row.verdict]
        for row in rows
    ]
