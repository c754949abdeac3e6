"""The console beside everything else: served for the time of a block, and shown where one can look.

Knows no terminal: whoever starts it says whether a browser should be opened.
"""

from __future__ import annotations

import asyncio
import os
import sys
import webbrowser
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.types import ASGIApp

from bot.console.app import close_console, create_console
from bot.web.server import serving
from bot.world import World

Around = Callable[[ASGIApp], ASGIApp]


@asynccontextmanager
async def console_face(world: World, around: Around | None = None) -> AsyncIterator[str]:
    """Serve the console; yields its address. Raises ConfigError, with what to do.

    `around` makes of the console the application that is served, with what else answers there.
    """
    settings = world.settings
    app = create_console(world, settings)
    where = settings.console
    served = around(app) if around else app
    async with serving(served, host=where.host, port=where.port) as address:
        try:
            yield where.public_url or address
        finally:
            await close_console(app)


def has_desktop() -> bool:
    """Say whether somebody could see a browser that is opened here."""
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


async def open_browser(address: str) -> bool:
    """Open a browser, without waiting for it; False where there is none."""
    return await asyncio.to_thread(webbrowser.open, address)
