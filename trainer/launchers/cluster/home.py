"""The job directory at home, as the bridge fills it: an exact copy of what the cluster wrote.

Progress and log are copied byte by byte from where the run began, so what came already is known by
a file's size, and a copy that was cut off goes on in the middle of a line. The result appears
whole: the adapter by a rename, the report last.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from core.errors import TrainingError
from core.files import fsync_path, publish_directory
from core.jobs import ADAPTER, LOG, PROGRESS, REPORT
from trainer.launchers.cluster.parcels import Part, Read, check, fetch


class Home:
    """One job directory. One process at a time fills it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def sizes(self) -> tuple[int, int]:
        """Return where progress and log of a new run begin, both at the start of a line."""
        for name in (PROGRESS, LOG):
            path = self._directory / name
            if path.exists() and path.read_bytes()[-1:] not in (b"", b"\n"):
                self._append(name, b"\n")
        return self._size(PROGRESS), self._size(LOG)

    def offsets(self, progress_from: int, log_from: int) -> tuple[int, int]:
        """Return how much of the run's progress and log is here."""
        return (
            max(0, self._size(PROGRESS) - progress_from),
            max(0, self._size(LOG) - log_from),
        )

    def add(self, progress: bytes, log: bytes) -> None:
        """Append what came."""
        self._append(PROGRESS, progress)
        self._append(LOG, log)

    def take(self, parts: tuple[Part, ...], read: Read) -> None:
        """Bring adapter and report here, every byte as the node's hashes say. Idempotent."""
        adapter = [part for part in parts if part.name.startswith(f"{ADAPTER}/")]
        report = [part for part in parts if part.name == REPORT]
        if len(adapter) + len(report) != len(parts) or not adapter or not report:
            names = ", ".join(part.name for part in parts) or "nothing"
            raise TrainingError(f"the run brought {names}; expected {ADAPTER}/ and {REPORT}")
        if not self._has(adapter):
            self._publish(adapter, read)
        arriving = self._directory / f".{REPORT}.arriving"
        fetch(arriving, report, lambda name, at: read(f"result/{name}", at))
        fsync_path(arriving / REPORT)
        (arriving / REPORT).rename(self._directory / REPORT)
        arriving.rmdir()
        fsync_path(self._directory)

    def _publish(self, parts: list[Part], read: Read) -> None:
        target = self._directory / ADAPTER
        shutil.rmtree(target, ignore_errors=True)  # of another attempt, which had no report

        def fill(path: Path) -> None:
            fetch(path, parts, lambda name, at: read(f"result/{name}", at))
            for file in (path / ADAPTER).iterdir():
                file.rename(path / file.name)
            (path / ADAPTER).rmdir()

        publish_directory(target, fill)

    def _has(self, parts: list[Part]) -> bool:
        try:
            check(self._directory, parts)
        except TrainingError:
            return False
        return True

    def _size(self, name: str) -> int:
        path = self._directory / name
        return path.stat().st_size if path.exists() else 0

    def _append(self, name: str, data: bytes) -> None:
        if data:
            with (self._directory / name).open("ab") as file:
                file.write(data)
