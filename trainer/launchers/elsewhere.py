"""Where else a job lies while it does: a small file beside its directory, on this machine.

Written before the first of people's words leave, removed once they are gone there. It stays when
the job directory is removed here, so that what is there can still be cleared away.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from core.files import write_atomic
from core.jobs import TRAIN, elsewhere_file


class Elsewhere(BaseModel):
    """A directory on another machine that holds a job."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str
    directory: str
    name: str


def read_elsewhere(directory: Path) -> Elsewhere | None:
    """Return where else a job lies, or None."""
    path = elsewhere_file(directory)
    return Elsewhere.model_validate_json(path.read_bytes()) if path.exists() else None


def write_elsewhere(directory: Path, place: Elsewhere) -> None:
    """Say that a job lies there from now on."""
    write_atomic(elsewhere_file(directory), place.model_dump_json() + "\n")


def left_elsewhere(home: Path, host: str, directory: str) -> dict[Path, Elsewhere]:
    """Return the jobs below `home` that lie there though their words are gone here."""
    found = {}
    for path in sorted(home.glob(".*.elsewhere.json")):
        job = path.with_name(path.name.removeprefix(".").removesuffix(".elsewhere.json"))
        place = Elsewhere.model_validate_json(path.read_bytes())
        if (place.host, place.directory) == (host, directory) and not (job / TRAIN).exists():
            found[job] = place
    return found
