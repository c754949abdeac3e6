"""What a job needs on another machine beside its directory: the code, of this very version, and the
base model's files. Knows no network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import core
import trainer
from core.errors import TrainingError
from core.files import sha256_file, sha256_of_files

_PACKAGES = (core, trainer)
_CODE = (".py", ".txt", ".jsonl")
_NOT_MODEL = (".bin", ".gguf", ".h5", ".msgpack", ".onnx", ".pt", ".pth")
"""Weights that are not read, since those in safetensors are."""

PYTHON = (3, 11)
PACKAGES = ("torch", "transformers", "peft", "trl")
"""What a person looks for in an environment's versions; NEEDED says what must be there."""
NEEDED = (*PACKAGES, "accelerate", "datasets", "numpy", "pydantic", "safetensors")


@dataclass(frozen=True, slots=True)
class Parcel:
    """Files below one directory, and their common hash."""

    root: Path
    files: tuple[str, ...]
    sha256: str


def code_parcel() -> Parcel:
    """Return the packages that a job runs on, as they lie here."""
    home = Path(core.__path__[0]).parent
    files = sorted(
        path.relative_to(home).as_posix()
        for package in _PACKAGES
        for path in Path(package.__path__[0]).rglob("*")
        if path.is_file() and path.suffix in _CODE
    )
    return Parcel(home, tuple(files), sha256_of_files({f: sha256_file(home / f) for f in files}))


def base_files(directory: Path) -> tuple[str, ...]:
    """Return the names of a base model's files; raises TrainingError if the directory is gone."""
    if not directory.is_dir():
        raise TrainingError(
            f"{directory}: the base model is not there any more; run: thumbtune prepare"
        )
    return tuple(
        sorted(
            path.name
            for path in directory.iterdir()
            if path.is_file() and not path.name.startswith(".") and path.suffix not in _NOT_MODEL
        )
    )
