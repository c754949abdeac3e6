"""The overview's page: how the bot is doing, at a glance."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from bot.console.here import Here
from bot.overview import look

routes = APIRouter()


@routes.get("/overview")
async def overview_page(request: Request, console: Here) -> Response:
    """Show votes over time, likes by adapter, speed, queue, errors and disk."""
    found = await look(console.world, console.scope)
    most = max((day.up + day.down for day in found.days), default=0)
    return await console.page(
        request,
        "overview.html",
        active="overview",
        o=found,
        most=max(most, 1),
        settings=console.settings,
    )
