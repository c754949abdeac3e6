"""Where the base model lies and which one it is, by content.

An adapter only fits the very weights it was trained on, so a base is known by the SHA-256 of its
weights and configuration. Hashing is done once: the result is kept in the data directory beside
size and time of each file. Does not know how to load or convert a model (see serving.base).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from core.errors import ModelError
from core.files import sha256_file, sha256_of_files, write_atomic

_IDENTITY_PATTERNS = ("config.json", "*.safetensors", "tokenizer.json", "chat_template.jinja")


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A base model ready to load from a local directory."""

    name: str
    path: Path
    sha256: str


def base_files(path: Path) -> list[Path]:
    """Return the files of a local model directory that loading it needs: what its hash covers, and
    what else of transformers' own small files lies there. Other formats of the weights stay out.
    """
    kinds = {".json", ".jinja", ".model", ".safetensors", ".txt"}
    return sorted(file for file in path.iterdir() if file.suffix in kinds and file.is_file())


def identify_base(name: str, path: Path, cache_dir: Path) -> BaseModel:
    """Hash a local model directory, or take the hash kept in `cache_dir` if no file changed since.

    Raises ModelError if the directory holds no model in safetensors.
    """
    files = sorted({file for pattern in _IDENTITY_PATTERNS for file in path.glob(pattern)})
    if (
        not any(file.suffix == ".safetensors" for file in files)
        or not (path / "config.json").is_file()
    ):
        raise ModelError(
            f"{path}: no base model here; expected config.json and *.safetensors, as "
            "transformers' save_pretrained writes them"
        )
    stamp = {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in files}
    cache = cache_dir / "base-hashes.json"
    known = json.loads(cache.read_text(encoding="utf-8")) if cache.exists() else {}
    entry = known.get(str(path.resolve()))
    if entry is None or entry["stamp"] != stamp:
        entry = {
            "stamp": stamp,
            "sha256": sha256_of_files({file.name: sha256_file(file) for file in files}),
        }
        cache_dir.mkdir(parents=True, exist_ok=True)
        write_atomic(cache, json.dumps({**known, str(path.resolve()): entry}, indent=1))
    return BaseModel(name=name, path=path, sha256=entry["sha256"])
