"""Where a run's and an adapter's files lie, and which of them stay when a run has ended.

A finished run keeps its job, its progress and its log; people's words, checkpoints and the copied
adapter go. Knows no database.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from core.jobs import JOB, LOG, PROGRESS, elsewhere_file
from core.manifest import parse_adapter_name
from core.records import Run

_KEPT = {JOB, PROGRESS, LOG}


class RunFiles:
    """The directories of runs and adapters under one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    def job(self, run: Run) -> Path:
        """Return the job directory of a run."""
        return self._data_dir / run.directory

    def lies_elsewhere(self, run: Run) -> bool:
        """Say whether a run whose words are here lies on another machine too."""
        directory = self.job(run)
        return elsewhere_file(directory).exists() and (directory / JOB).exists()

    def adapter_home(self, name: str) -> str:
        """Return where an adapter is published, relative to the data directory."""
        scope, version = parse_adapter_name(name)
        return f"adapters/{scope}/v{version}"

    def adapter(self, name: str) -> Path:
        """Return where an adapter is published."""
        return self._data_dir / self.adapter_home(name)

    def jobs(self) -> list[Path]:
        """Return every job directory there is."""
        home = self._data_dir / "runs"
        return [path for path in home.iterdir() if path.is_dir()] if home.exists() else []

    def remove_copies(self, directory: Path) -> None:
        """Delete from a job directory what a finished run need not keep. Idempotent."""
        for path in directory.iterdir() if directory.exists() else ():
            if path.name in _KEPT:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
