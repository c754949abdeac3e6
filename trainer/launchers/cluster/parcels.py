"""Files on their way from one process to another: listed with their hashes, sent in pieces.

A file counts as arrived when its SHA-256 is the sender's. Pieces bound the memory that a base model
of any size takes on its way. Knows not what carries the pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict

from core.errors import TrainingError
from core.files import sha256_file

PIECE_BYTES = 8 << 20

Read = Callable[[str, int], bytes]
"""Returns the piece of a named file that begins at an offset; empty past its end."""


class Part(BaseModel):
    """One file of a parcel; its name is a path with slashes below the parcel's directory."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    size: int
    sha256: str


def parts_of(root: Path, files: Iterable[Path]) -> tuple[Part, ...]:
    """List files below `root`."""
    return tuple(
        Part(
            name=path.relative_to(root).as_posix(),
            size=path.stat().st_size,
            sha256=sha256_file(path),
        )
        for path in files
    )


def files_below(directory: Path) -> list[Path]:
    """Return every file of a tree, in order."""
    return sorted(path for path in directory.rglob("*") if path.is_file())


def offsets(part: Part) -> Iterator[int]:
    """Yield where each piece of a file begins; an empty file has one."""
    yield from range(0, max(1, part.size), PIECE_BYTES)


def read_piece(root: Path, name: str, offset: int) -> bytes:
    """Return one piece of a file below `root`."""
    with inside(root, name).open("rb") as file:
        file.seek(offset)
        return file.read(PIECE_BYTES)


def write_piece(root: Path, name: str, offset: int, data: bytes) -> None:
    """Put a piece where it belongs; the same piece again changes nothing."""
    path = inside(root, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def fetch(target: Path, parts: Iterable[Part], read: Read) -> None:
    """Read every part into `target` and check it. Raises TrainingError for a damaged one."""
    wanted = list(parts)
    for part in wanted:
        for offset in offsets(part):
            write_piece(target, part.name, offset, read(part.name, offset))
    check(target, wanted)


def check(target: Path, parts: Iterable[Part]) -> None:
    """Raise TrainingError unless every part lies below `target` as it was sent."""
    for part in parts:
        path = inside(target, part.name)
        found = sha256_file(path) if path.is_file() else "nothing"
        if found != part.sha256:
            raise TrainingError(
                f"{part.name} arrived damaged: found {found}, expected SHA-256 {part.sha256}; "
                "run it again"
            )


def inside(root: Path, name: str) -> Path:
    """Return the path of a name below `root`; raises TrainingError for one that leads out."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts:
        raise TrainingError(f"{name!r}: expected the name of a file inside the job directory")
    return root / pure
