"""The processors there are to work with: how many, and what is told of them."""

from __future__ import annotations

import os
from pathlib import Path

AMD = "AuthenticAMD"
_TOLD = Path("/proc/cpuinfo")


def available_cores() -> int:
    """Return the processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def told(*names: str, source: Path = _TOLD) -> str:
    """Return what Linux tells of a processor in the first line of one of these names; empty where
    it tells nothing.
    """
    try:
        lines = source.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return ""
    parts = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in parts if name.strip() in names), "")
