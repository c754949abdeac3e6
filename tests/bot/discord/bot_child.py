"""The bot in a process of its own, on a scripted engine, against a double: for the load test.

Usage: `python -m tests.bot.discord.bot_child DATA_DIR API_URL GATEWAY_URL WORDS [GROUP GROUPS]`.
Prints a JSON line when it is ready, and after a line on standard input leaves and prints what it
measured of itself.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from pydantic import SecretStr

from bot.discord.serve import discord_face
from core.sections import DiscordSettings
from core.settings import Settings
from tests.bot.discord.scripted import ScriptedEngine, scripted_world
from tests.discord_double import TOKEN

TICK_S = 0.005


class Pulse:
    """Measures how late the event loop is, tick by tick, and what memory the process holds."""

    def __init__(self) -> None:
        self.stalls_s: list[float] = []
        self.rss_mb: list[float] = []

    async def beat(self) -> None:
        """Measure until cancelled."""
        process, looked = psutil.Process(), 0.0
        while True:
            before = time.perf_counter()
            await asyncio.sleep(TICK_S)
            self.stalls_s.append(time.perf_counter() - before - TICK_S)
            if before - looked > 1.0:
                looked = before
                self.rss_mb.append(process.memory_info().rss / 1e6)

    def figures(self) -> dict[str, Any]:
        """Return what was measured, in milliseconds and megabytes."""
        ordered = sorted(self.stalls_s)
        third = len(self.rss_mb) // 3
        return {
            "stall_max_ms": 1000 * ordered[-1],
            "stall_p99_ms": 1000 * ordered[int(0.99 * len(ordered))],
            "rss_first_third_mb": self.rss_mb[third],
            "rss_end_mb": self.rss_mb[-1],
            "torch": "torch" in sys.modules,
        }


async def main(
    data_dir: Path, api_url: str, gateway_url: str, words: int, group: int = 0, groups: int = 1
) -> None:
    """Run until told to stop."""
    settings = Settings(
        data_dir=data_dir,
        discord=DiscordSettings(
            api_url=api_url,
            gateway_url=gateway_url,
            group=group,
            groups=groups,
            person_per_minute=600,
            channel_per_minute=6000,
        ),
        discord_token=SecretStr(TOKEN),
    )
    pulse = Pulse()
    engine = ScriptedEngine(words=words, pace_s=0.04)
    async with scripted_world(settings, engine) as world, discord_face(world, print):
        print(json.dumps({"ready": True}), flush=True)
        beating = asyncio.create_task(pulse.beat())
        await asyncio.to_thread(sys.stdin.readline)
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
    print(json.dumps(pulse.figures()), flush=True)


if __name__ == "__main__":
    home, api, gateway, *numbers = sys.argv[1:]
    asyncio.run(main(Path(home), api, gateway, *map(int, numbers)))
