"""Checkpoints of a stage that can be trusted after `kill -9`.

transformers writes a checkpoint file by file. One counts only once its seal, a list of every file's
SHA-256, is written after everything is on the disk; any other is removed on the next start, and the
one before it, or the start, is gone back to.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from core.files import fsync_path, sha256_file, write_atomic

KEPT = 2
"""The newest may be broken; then there is one before it."""
_SEAL = "seal.json"


def seal_checkpoint(checkpoint: Path) -> None:
    """Flush every file of a written checkpoint, then declare it whole."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != _SEAL)
    for path in files:
        fsync_path(path)
    digests = {str(path.relative_to(checkpoint)): sha256_file(path) for path in files}
    write_atomic(checkpoint / _SEAL, json.dumps(digests))


def newest_whole_checkpoint(directory: Path) -> Path | None:
    """Return the newest checkpoint whose every byte is as sealed; remove newer, broken ones."""
    found = sorted(directory.glob("checkpoint-*"), key=_step, reverse=True)
    for checkpoint in found:
        if _whole(checkpoint):
            return checkpoint
        shutil.rmtree(checkpoint)
    return None


def _step(checkpoint: Path) -> int:
    number = checkpoint.name.removeprefix("checkpoint-")
    return int(number) if number.isdigit() else -1


def _whole(checkpoint: Path) -> bool:
    try:
        sealed = json.loads((checkpoint / _SEAL).read_text(encoding="utf-8"))
        return all(sha256_file(checkpoint / name) == digest for name, digest in sealed.items())
    except (OSError, ValueError, AttributeError):
        return False


class CheckpointEvery(TrainerCallback):
    """Save at the first step's end after `seconds`, and seal what was saved."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._last = clock()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for a checkpoint when it is time, but not after the last step: the result follows."""
        due = self._clock() - self._last >= self._seconds and state.global_step < state.max_steps
        if args.world_size > 1:  # clocks differ, and all must save at the same step
            asked = [due]
            distributed.broadcast_object_list(asked, src=0)
            due = asked[0]
        if due:
            control.should_save = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Seal the checkpoint just written, once every process has written its part."""
        if args.world_size > 1:
            distributed.barrier()
        if state.is_world_process_zero:
            seal_checkpoint(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")
        self._last = self._clock()
