"""Views whose buttons carry all they need, so that nothing has to remember the view."""

from __future__ import annotations

from discord import ui


class LastingView(ui.View):
    """A view of dynamic items only; its buttons work for ever and over restarts.

    discord.py holds each view it sends, an ephemeral one for 15 minutes and with a timer: 7 kB for
    each vote. One that is finished it does not hold, and the dynamic items need no view.
    """

    def __init__(self) -> None:
        super().__init__(timeout=None)
        self.stop()
