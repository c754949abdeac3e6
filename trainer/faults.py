"""How a job's process ends: exit codes, plain sentences, and no later than the one it works for.

Knows no torch, so that a job can be refused before anything is loaded.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
import time

from core.errors import InvalidInput, ModelError, TrainingError

EXIT_FAILED = 1
EXIT_INPUT = 2
EXIT_MEMORY = 4
EXIT_DISK = 5
EXIT_LOSS = 6
EXIT_STOPPED = 128 + signal.SIGTERM

_PARENT_POLL_S = 1.0
_PARENT_GRACE_S = 20.0


class JobFault(TrainingError):
    """A job cannot go on; its message says why in a sentence, `exit_code` tells programs."""

    exit_code = EXIT_FAILED


def watch_parent(parent: int) -> None:
    """Stop this process when its parent is gone: nobody would ever fetch the result."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_POLL_S)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_PARENT_GRACE_S)
        os._exit(EXIT_STOPPED)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


def diagnose(error: Exception) -> tuple[int, str]:
    """Return the exit code and a plain sentence for what went wrong."""
    text = str(error) or type(error).__name__
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, JobFault):
        return error.exit_code, text
    if (
        isinstance(error, MemoryError)
        or "OutOfMemoryError" in kinds
        or "can't allocate memory" in text
    ):
        advice = "lower training.batch_size or training.max_length"
        return EXIT_MEMORY, f"out of memory; {advice} ({text.splitlines()[0]})"
    disk = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if disk or "No space left on device" in text or "failed writing file" in text:
        return (
            EXIT_DISK,
            f"the disk is full; free some space and run it again ({text.splitlines()[0]})",
        )
    if isinstance(error, (InvalidInput, ModelError, FileNotFoundError)):
        return EXIT_INPUT, text
    return EXIT_FAILED, f"{text} ({type(error).__name__})"
