"""A private directory on a node that vanishes with the process that made it, and with the job it
started there. See guard.py.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainer.launchers.cluster import guard


class GuardedDirectory:
    """A directory with a guard behind it. Use from one thread at a time."""

    def __init__(self, path: Path, *, grace_s: float = 0.0) -> None:
        self.path = path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = [sys.executable, "-I", "-S", guard.__file__, str(path), str(grace_s)]
        ours, self._line = os.pipe()
        with os.fdopen(ours) as pipe:
            subprocess.run(  # returns at once: the guard goes on in a process of its own
                command,
                stdin=pipe,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                check=True,
            )

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> subprocess.Popen[bytes]:
        """Start a process whose group the guard kills; its output is appended to `log`."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(environment),
                start_new_session=True,
            )
        self._tell(process.pid)
        return process

    def end(self, process: subprocess.Popen[bytes], grace_s: float) -> None:
        """Stop a process: SIGTERM, after the grace SIGKILL to it and everything it started."""
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
        self.sweep(process)
        process.wait()

    def sweep(self, process: subprocess.Popen[bytes]) -> None:
        """Kill what a process left behind in its group, itself if it still runs."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        self._tell(0)

    def close(self) -> None:
        """Remove the directory and let the guard go. Idempotent."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.abandon()

    def abandon(self) -> None:
        """Leave the directory to the guard, as a process that ends does. Idempotent."""
        if self._line >= 0:
            os.close(self._line)
            self._line = -1

    def _tell(self, group: int) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self._line, f"{group}\n".encode())
