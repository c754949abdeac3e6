"""How a batch is laid on a device: how many examples at once, and what is kept for the way back."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fit:
    """A batch of examples is passed `rows` at a time, `passes` times, before a step is taken."""

    rows: int
    passes: int = 1
    checkpointing: bool = False
