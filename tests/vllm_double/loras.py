"""The adapters of a server: names in its front end, weights in its engine.

As in vLLM, the front end forgets a name at once and the engine keeps the weights until others need
the room; weights that went are read again from their path when a request needs them.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from core.errors import ThumbtuneError
from core.manifest import CONTENT_FILES, MANIFEST, describe_directory
from serving.engine import LocalEngine
from tests.vllm_double.faults import Options


@dataclass(frozen=True)
class Lora:
    """A LoRARequest: what a name stands for, until the process ends."""

    name: str
    number: int
    path: str

    @property
    def inside(self) -> str:
        """What the engine of the double knows it by."""
        return f"lora@v{self.number}"


class NotFoundThere(Exception):
    """No adapter at the path."""


class Refused(Exception):
    """The engine's own words."""


class Loras:
    """The adapters of one process."""

    def __init__(self, engine: LocalEngine, options: Options, home: Path) -> None:
        self._engine, self._options, self._home = engine, options, home
        self.by_name: dict[str, Lora] = {}
        self._count = 0

    async def load(self, name: str, path: str) -> None:
        """Load an adapter under a new name."""
        self._count += 1
        lora = Lora(name, self._count, path)
        await self.activate(lora)
        self.by_name[name] = lora

    async def activate(self, lora: Lora) -> None:
        """See that an adapter's weights are in the engine."""
        if lora.inside not in self._engine.stats().adapters:
            await self._read(lora)

    async def _read(self, lora: Lora) -> None:
        if not self._options.enable_lora:
            raise Refused("LoRA is not enabled. Use --enable-lora to enable LoRA.")
        source = Path(lora.path)
        try:
            config = json.loads((source / "adapter_config.json").read_bytes())
        except FileNotFoundError:
            raise NotFoundThere from None
        if config["r"] > self._options.max_lora_rank:
            raise Refused(
                f"LoRA rank {config['r']} is greater than max_lora_rank "
                f"{self._options.max_lora_rank}."
            )
        private = self._home / str(lora.number)
        shutil.rmtree(private, ignore_errors=True)
        private.mkdir(parents=True)
        for file in CONTENT_FILES:
            shutil.copyfile(source / file, private / file)
        manifest = describe_directory(
            private, name=lora.inside, base_model="tiny", base_sha256=self._engine.base.sha256,
            run_id="run_double", recipe="sft", created_at="2026-01-01T00:00:00.000000Z",
        )  # fmt: skip
        (private / MANIFEST).write_text(manifest.model_dump_json(), encoding="utf-8")
        try:
            await self._engine.load(lora.inside, private)
        except ThumbtuneError as error:
            raise Refused(str(error)) from error
