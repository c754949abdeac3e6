"""Forms with one field, which work over a restart: the form's id says what it is about.

discord.py keeps open forms in memory and drops what it does not know; so it is told of none, and
each feature takes its own from `on_interaction`, whether they were opened before a restart or not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import discord
from discord import ui


def form(
    custom_id: str, *, title: str, label: str, text: str, limit: int, required: bool = True
) -> ui.Modal:
    """Return a form with one paragraph, filled with `text`."""
    modal = ui.Modal(title=title, custom_id=custom_id)
    field: ui.TextInput[Any] = ui.TextInput(
        style=discord.TextStyle.paragraph,
        default=text[:limit] or None,
        max_length=limit,
        required=required,
        custom_id="text",
    )
    modal.add_item(ui.Label(text=label, component=field))
    modal.stop()  # so that discord.py keeps none
    return modal


def sent(
    interaction: discord.Interaction[Any], pattern: re.Pattern[str]
) -> tuple[re.Match[str], str] | None:
    """Return what a form's id says and what was written, if it is one of these; else None."""
    if interaction.type is not discord.InteractionType.modal_submit:
        return None
    data: Any = interaction.data or {}
    match = pattern.fullmatch(data.get("custom_id", ""))
    return (match, _written(data["components"])) if match else None


def _written(components: Sequence[Any]) -> str:
    """Return the text of a form's one field, whatever it is wrapped in."""
    for part in components:
        inner = part.get("components") or ([part["component"]] if "component" in part else ())
        if text := part.get("value") or _written(inner):
            return str(text)
    return ""
