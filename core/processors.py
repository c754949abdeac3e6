"""How many processors there are to work with."""

from __future__ import annotations

import os


def available_cores() -> int:
    """Return the processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
