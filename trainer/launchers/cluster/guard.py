"""`python guard.py DIR [GRACE_S]`: clean up behind a process, however that ends.

The process holds the other end of our standard input and writes the process group of what it
started there. When that end closes, which a `kill -9` does too, the group is killed and the
directory removed. With a grace, only if nobody holds DIR/lock when it is over: then the process was
not started anew. Its own session, no child of anybody: Ray ends the children of its workers.
Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import sys
import time
from pathlib import Path

_POLL_S = 0.5


def main(directory: Path, grace_s: float) -> None:
    """Wait in a process of our own until the other end closes, then clean up."""
    if os.fork():
        os._exit(0)
    os.setsid()
    group = 0
    for line in sys.stdin:
        group = int(line)
    if group:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    until = time.monotonic() + grace_s
    while time.monotonic() < until:
        if not directory.exists():
            return
        time.sleep(_POLL_S)
    if grace_s and not _nobody_holds(directory / "lock"):
        return
    shutil.rmtree(directory, ignore_errors=True)


def _nobody_holds(lock: Path) -> bool:
    try:
        with lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.0)
