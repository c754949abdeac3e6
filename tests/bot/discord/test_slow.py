"""A busy database over real sockets: every command is acknowledged in time, and answered later."""

from __future__ import annotations

import time

import pytest

from bot.discord.wording.common import UNFORESEEN
from tests.bot.discord.test_sockets import Place, double, place

__all__ = ["double", "place"]
BUSY_S = 1.2


def hold_database(place: Place) -> None:
    """Keep the database's thread busy, as a large deletion does."""
    thread = place.world.database._thread
    assert thread is not None
    thread.submit(time.sleep, BUSY_S)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("chat", {"text": "Hello"}),
        ("arena", {"prompt": "Hello"}),
        ("reset", {}),
        ("privacy show", {}),
        ("privacy opt-in", {}),
        ("privacy opt-out", {}),
    ],
)
async def test_a_busy_database_delays_no_acknowledgement(
    place: Place, command: str, options: dict[str, str]
) -> None:
    """Long before Discord's three seconds Ada sees that an answer is on its way, and it comes."""
    hold_database(place)
    made = await place.double.slash(place.ada, place.channel, command, **options)
    await made
    assert made.acknowledged_after_s is not None
    assert made.acknowledged_after_s < BUSY_S
    assert made.callback_type == 5
    assert UNFORESEEN not in made.response.content
