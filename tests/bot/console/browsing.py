"""A real browser on a console that is really served; what both needs is skipped with a reason."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
AXE = Path(__file__).parents[3] / "node_modules" / "axe-core" / "axe.min.js"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
PHONE = {"width": 360, "height": 740}


class Sight:
    """A page, and what its browser complained of."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", self._agreed)

    def _heard(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    async def _agreed(self, dialog: Any) -> None:
        await dialog.accept()

    async def settled(self) -> None:
        """Wait until no reply is being written and htmx is at rest."""
        await self.page.wait_for_selector("[aria-busy=true], .htmx-request", state="detached")

    async def sideways(self) -> int:
        """Return by how many pixels the page is wider than the window."""
        wider: int = await self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        return wider

    async def faults(self) -> list[str]:
        """Return what axe finds serious or critical, in a line each."""
        await self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found = await self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{one['id']}: {one['nodes'][0]['html'][:160]}"
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
        ]


@asynccontextmanager
async def chromium(**context: Any) -> AsyncIterator[Sight]:
    """Open a browser with one page."""
    playwright = pytest.importorskip(
        "playwright.async_api", reason="playwright is not installed (make test installs it)"
    )
    path = _chromium_path()
    async with playwright.async_playwright() as started:
        browser = await started.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            page = await (await browser.new_context(**context)).new_page()
            page.set_default_timeout(60_000)
            yield Sight(page)
        finally:
            await browser.close()


def _chromium_path() -> str:
    """Return where the system's Chromium is, or skip."""
    path = next((path for path in CHROMIUM if Path(path).exists()), None)
    if path is None:
        pytest.skip(f"no Chromium at {', '.join(CHROMIUM)}")
    return path


def require_axe() -> None:
    """Skip where axe-core is not there."""
    if not AXE.exists():
        pytest.skip("axe-core is not here: npm install --no-save --no-package-lock axe-core@4.14.1")
