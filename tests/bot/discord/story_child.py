"""The bot as its operator runs it: `thumbtune up` in a process of its own, without a terminal.

Owns the settings file, the data directory and what the process prints. The process sees one thread,
a token in its environment and, for Discord, the double.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.settings import Settings
from storage.database import Database
from tests.bot.conftest import RELAXED_GATE
from tests.discord_double import TOKEN, Double

START_S = 120.0
Table = dict[str, Any]


@dataclass(frozen=True)
class Footprint:
    """What a process holds: MiB in memory, processor time, and the files mapped into it."""

    resident_mib: float
    processor_s: float
    mapped: str

    def holds(self, library: str) -> bool:
        """Say whether a library is loaded."""
        return library in self.mapped


class Operator:
    """Who starts, kills and stops the bot, and reads what it prints."""

    def __init__(self, home: Path, double: Double, **tables: Table) -> None:
        self._config = home / "config.toml"
        self._printed = home / "printed.txt"
        self._printed_before = 0
        self._home = home
        self._data_dir = home / "data"
        self._process: asyncio.subprocess.Process | None = None
        discord = {"api_url": double.api_url, "gateway_url": double.gateway_url}
        given = {**tables, "gate": RELAXED_GATE}
        given["discord"] = {**given.get("discord", {}), **discord}
        self._config.write_text(_toml(given), encoding="utf-8")

    async def start(self) -> str:
        """Start the bot; return what it printed until it was connected to Discord."""
        with self._printed.open("ab") as printed:
            self._printed_before = printed.tell()
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bot.cli.app", "up"),
                *("--config", str(self._config), "--data-dir", str(self._data_dir)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
                env={**os.environ, "DISCORD_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"},
            )
        async with asyncio.timeout(START_S):
            while "Discord: connected" not in self.printed():
                assert self._process.returncode is None, self.printed()
                await asyncio.sleep(0.1)
        return self.printed()

    async def kill(self) -> None:
        """End the bot as `kill -9` does; nothing happens if it has ended."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def stop(self, *, within_s: float) -> int:
        """Ask the bot to end, as a service manager does; return its exit code."""
        assert self._process is not None
        self._process.terminate()
        return await asyncio.wait_for(self._process.wait(), within_s)

    def footprint(self) -> Footprint:
        """Look at the running process; Linux only."""
        assert self._process is not None
        about = Path(f"/proc/{self._process.pid}")
        (line,) = [one for one in (about / "status").read_text().splitlines() if "VmRSS" in one]
        counts = (about / "stat").read_text().rpartition(")")[2].split()
        ticks = int(counts[11]) + int(counts[12])  # in user mode and in the kernel: proc(5)
        processor_s = ticks / os.sysconf("SC_CLK_TCK")
        return Footprint(int(line.split()[1]) / 1024, processor_s, (about / "maps").read_text())

    def printed(self) -> str:
        """Return what the bot has printed since it was started."""
        return self._printed.read_bytes()[self._printed_before :].decode()

    def rows(self, statement: str) -> list[Table]:
        """Read the database, beside the bot if it runs."""
        with Database(self._data_dir / Settings().storage.file) as database:
            return database._connection.all(statement)

    def stored_bytes(self) -> bytes:
        """Return all that there is, the base model left out: data, settings, and what was
        printed.
        """
        base = self._data_dir / "models"
        found = [path for path in self._home.rglob("*") if not path.is_relative_to(base)]
        return b"\n".join(path.read_bytes() for path in found if path.is_file())


def _toml(tables: dict[str, Table]) -> str:
    lines: list[str] = []
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"
