"""A process that serves the API and never writes a word, to be killed in the middle of a reply.

Usage: python -m tests.bot.api.frozen_child CONFIG DATA_DIR. Run by test_serve.py.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from bot.cli.serve import api_face
from bot.world import open_world
from core.settings import load_settings
from tests.bot.api.conftest import standstill


async def main(config: Path, data_dir: Path) -> None:
    """Serve until killed."""
    settings = load_settings(config, data_dir)
    api = settings.api.model_copy(update={"port": 0})
    settings = settings.model_copy(update={"api": api})
    async with open_world(settings, lambda _: None) as world, api_face(world) as url:
        with standstill(world):
            print(json.dumps({"url": f"{url}/v1"}), flush=True)
            await asyncio.sleep(60)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
