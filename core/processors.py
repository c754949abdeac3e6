"""The processors there are to work with: how many, and whose."""

from __future__ import annotations

import os
from pathlib import Path

AMD = "AuthenticAMD"
_TOLD = Path("/proc/cpuinfo")


def available_cores() -> int:
    """Return the processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_maker(told: Path = _TOLD) -> str:
    """Return whose an x86 processor says it is, as Linux tells it; empty where it is not told."""
    try:
        lines = told.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return ""
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id"))
    return next(named, "")
