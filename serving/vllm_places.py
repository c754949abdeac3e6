"""Where vLLM finds an adapter: the directory both machines see, and names that mean one content.

A version lies there as `<scope>/v<N>-<part of its SHA-256>`, copied whole, verified, then renamed
into place; it never changes and goes once nobody has it loaded. Without a shared directory vLLM
reads the data directory's own. Knows files, not the wire.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from core.errors import AdapterRefused, EngineStopped
from core.files import publish_directory, sweep_temporary
from core.manifest import (
    CONTENT_FILES,
    MANIFEST,
    PEFT_CONFIG,
    Manifest,
    parse_adapter_name,
    verify_content,
    verify_published,
)
from core.sections import ServingSettings

_SHA_DIGITS = 16
"""Of the SHA-256, in a name: 64 bits, so that nobody finds other bytes for the same name."""
_HOME = "adapters"
"""Where in the data directory versions lie."""
IMPOSSIBLE_RANK = 1 << 20
"""More than any server takes: its refusal names the rank that it does take."""


@dataclass(frozen=True, slots=True)
class Placed:
    """An adapter where vLLM sees it. `there` is its directory in vLLM's eyes, `called` its name."""

    name: str
    sha256: str
    source: Path
    here: Path
    there: str

    @property
    def called(self) -> str:
        """The adapter's name at vLLM: it can mean no other bytes, whatever a server remembers."""
        return f"{self.name}-{self.sha256[:_SHA_DIGITS]}"


class Shelf:
    """The directory of adapters that vLLM reads. Its methods block on the disk."""

    def __init__(self, settings: ServingSettings, data_dir: Path) -> None:
        self._copies = bool(settings.vllm_adapters)
        shared = Path(settings.vllm_adapters).expanduser()
        self.here = (shared if self._copies else data_dir / _HOME).resolve()
        self.there = settings.vllm_adapters_there.rstrip("/") or str(self.here)

    def put(self, name: str, directory: Path, base_sha256: str) -> Placed:
        """Verify a published adapter and bring it where vLLM sees it. Idempotent.

        Raises AdapterRefused, or EngineStopped where it cannot be written.
        """
        manifest = verify_published(directory, name=name, base_sha256=base_sha256)
        if not self._copies:
            place = directory.resolve()
            return Placed(name, manifest.sha256, directory, place, str(place))
        scope, version = parse_adapter_name(name)
        part = f"{scope}/v{version}-{manifest.sha256[:_SHA_DIGITS]}"
        target = self.here / part
        try:
            self._copy(directory, target, manifest)
        except OSError as error:
            raise EngineStopped(
                f"adapter {name} cannot be copied to {target}: {error.strerror or error}; see that "
                "serving.vllm_adapters can be written and has room"
            ) from error
        try:
            verify_published(target, name=name, base_sha256=base_sha256)
        except AdapterRefused as spoilt:  # the version itself is sound
            raise EngineStopped(
                f"adapter {name}: its copy for vLLM was changed ({spoilt}); it may be loaded, so "
                f"it is not repaired: stop vLLM, remove {target}, start vLLM"
            ) from spoilt
        return Placed(name, manifest.sha256, directory, target, f"{self.there}/{part}")

    def remove(self, placed: Placed) -> None:
        """Remove an adapter's copy, if it is one; vLLM must have let go of it before."""
        if self._copies:
            shutil.rmtree(placed.here, ignore_errors=True)

    def sweep(self) -> None:
        """Remove every copy, and what crashed copies left; nobody may have one loaded."""
        if not self._copies:
            return
        for scope in self.here.iterdir() if self.here.is_dir() else ():
            for copy in scope.glob("v*-*"):
                if (copy / MANIFEST).is_file():  # ours, and nothing else that lies there
                    shutil.rmtree(copy, ignore_errors=True)
            sweep_temporary(scope)

    def holds(self, there: str) -> bool:
        """Say whether a directory, in vLLM's eyes, is one of this shelf."""
        return PurePosixPath(self.there) in PurePosixPath(there).parents

    @contextmanager
    def marker(self) -> Iterator[str]:
        """Put a directory there that no server can load, for the block; yield it in vLLM's eyes.

        By its refusal a server shows that it sees the directory, and says what it would take.
        """
        mark = self.here / f".probe.{os.getpid()}.tmp"
        config = {
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": IMPOSSIBLE_RANK, "lora_alpha": 1,
            "target_modules": ["q_proj"],
        }  # fmt: skip
        try:
            mark.mkdir(parents=True, exist_ok=True)
            (mark / PEFT_CONFIG).write_text(json.dumps(config), encoding="utf-8")
        except OSError as error:
            raise EngineStopped(
                f"{self.here} cannot be written: {error.strerror or error}; vLLM reads adapters "
                "there (serving.vllm_adapters)"
            ) from error
        try:
            yield f"{self.there}/{mark.name}"
        finally:
            shutil.rmtree(mark, ignore_errors=True)

    def _copy(self, source: Path, target: Path, manifest: Manifest) -> None:
        def fill(temporary: Path) -> None:
            for file in (*CONTENT_FILES, MANIFEST):
                shutil.copyfile(source / file, temporary / file)
            verify_content(temporary, manifest)

        if not target.exists():
            publish_directory(target, fill)
