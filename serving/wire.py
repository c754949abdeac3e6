"""What a bot, the roster and the replicas say to each other: pure data, without Ray and torch.

A version is known everywhere by its name and the SHA-256 of its content, never by the name alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from core.basemodel import BaseModel
from core.errors import AdapterRefused
from core.generation import GenerationRequest, GenerationResult
from core.manifest import CONTENT_FILES, MANIFEST, verify_published
from core.sections import ReplicaSettings, ServingSettings

# -- a version


@dataclass(frozen=True, slots=True)
class Version:
    """A version as the bot's side knows it: its name and its content's hash."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """A published adapter as bytes, to be verified again wherever they arrive."""

    name: str
    sha256: str
    files: dict[str, bytes] = field(repr=False)

    def write(self, directory: Path) -> None:
        """Lay the files down in a new directory."""
        directory.mkdir(parents=True)
        for name, content in self.files.items():
            (directory / name).write_bytes(content)


def read_files(directory: Path, name: str, base_sha256: str) -> AdapterFiles:
    """Read a published adapter to send it; raises AdapterRefused unless every byte is right."""
    manifest = verify_published(directory, name=name, base_sha256=base_sha256)
    try:
        files = {file: (directory / file).read_bytes() for file in (MANIFEST, *CONTENT_FILES)}
    except OSError as error:
        raise AdapterRefused(f"adapter {name}: cannot be read: {error}") from error
    return AdapterFiles(name, manifest.sha256, files)


# -- what a replica is


@dataclass(frozen=True, slots=True)
class ReplicaSpec:
    """Everything a replica's replies depend on, and how many there are to be."""

    base: BaseModel
    dtype: str
    device: str
    serving: ServingSettings
    replicas: ReplicaSettings
    threads: int

    def identity(self) -> str:
        """Return a hash of all that must be the same for replicas to be found again, our own code
        included. Where they lie and what they are called is left out.
        """
        digest = hashlib.sha256(_code())
        named = {"address", "app", "keep", "start_timeout_s"}
        for part in (
            self.base.sha256,
            str(self.base.path),
            self.dtype,
            self.device,
            str(self.threads),
            self.serving.model_dump_json(),
            self.replicas.model_dump_json(exclude=named),
        ):
            digest.update(part.encode() + b"\n")
        return digest.hexdigest()


def _code() -> bytes:
    """Return the hash of what a replica runs of ours."""
    home, digest = Path(__file__).parents[1], hashlib.sha256()
    for package in ("core", "serving"):
        for path in sorted((home / package).rglob("*.[pch]*")):
            if path.suffix in {".py", ".c", ".h"}:
                digest.update(path.relative_to(home).as_posix().encode() + path.read_bytes())
    return digest.digest()


# -- a reply


@dataclass(frozen=True, slots=True)
class Ask:
    """A reply to be written for `owner`; `sha256` is the adapter's content, empty for the base.

    `identity` says what kind of replica is meant: another one refuses.
    """

    owner: str
    identity: str
    request: GenerationRequest
    sha256: str


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of a reply, and how many tokens were drawn so far."""

    text: str
    drawn: int


Word: TypeAlias = Literal["missing", "busy", "invalid", "stopped"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a replica writes no reply, or no more of it."""

    word: Word
    said: str


Answer: TypeAlias = Piece | Refusal | GenerationResult

# -- the set of versions


@dataclass(frozen=True, slots=True)
class Wanted:
    """A version that a replica is to hold; `proven` once every replica then running held it."""

    sha256: str
    proven: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What every replica is to hold, as of `generation`.

    While it is not `whole` (the roster itself was restarted), versions that are not in it stay.
    `owners` are the bots that live; `threads` is for each replica, 0 leaves it as it is.
    """

    generation: int
    versions: dict[str, Wanted]
    owners: frozenset[str]
    threads: int
    whole: bool


@dataclass(frozen=True, slots=True)
class Report:
    """What a replica holds (name and SHA-256) and what it cannot (name and why), once it had done
    what `generation` asks. `ready` says that it takes requests.
    """

    member: str
    identity: str
    generation: int
    held: dict[str, str]
    refused: dict[str, str]
    ready: bool
    shares_cores: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """How the replicas stand: how many take requests, and whose files the roster has lost."""

    ready: int
    missing: frozenset[str]
    shares_cores: bool
