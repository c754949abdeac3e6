"""What comes back of a job: verified beside its directory's files, then moved into place.

Invariant: the report is moved last, and with it the job is done. Knows no network.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from core.files import fsync_path, publish_directory, sha256_file
from core.jobs import ADAPTER, LOG, REPORT
from core.manifest import CONTENT_FILES

INCOMING = ".incoming"
"""Where it arrives, in the job directory; what is there of an earlier try is used."""


def verified(directory: Path, digests: dict[str, str]) -> bool:
    """Say whether each of these files is there with this SHA-256."""
    return all(
        (directory / name).is_file() and sha256_file(directory / name) == digest
        for name, digest in digests.items()
    )


def publish_results(incoming: Path, directory: Path) -> None:
    """Move verified results into place; the report is last, and with it the job is done."""

    def fill(target: Path) -> None:
        for name in CONTENT_FILES:
            (incoming / ADAPTER / name).rename(target / name)

    shutil.rmtree(directory / ADAPTER, ignore_errors=True)  # of an attempt without a report
    publish_directory(directory / ADAPTER, fill)
    if (incoming / LOG).exists():
        (incoming / LOG).replace(directory / LOG)
    fsync_path(incoming / REPORT)
    (incoming / REPORT).replace(directory / REPORT)
    fsync_path(directory)
    shutil.rmtree(incoming, ignore_errors=True)
