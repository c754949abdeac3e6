"""Answering interactions: always in time, always to the one who asked, always in plain words.

Discord wants a first answer within three seconds; people want a vote acknowledged within one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import discord
from discord import app_commands

from bot.discord.wording import common as words
from core.errors import ThumbtuneError

log = logging.getLogger(__name__)
PATIENCE_S = 0.7
"""How long an answer may take before the interaction is acknowledged without it."""
FORM_S = 2.0
"""How long a form may take: it must be the first answer, within the three seconds."""

P = ParamSpec("P")
T = TypeVar("T")


async def tell(
    interaction: discord.Interaction[Any],
    text: str,
    *,
    view: discord.ui.View = discord.utils.MISSING,
    file: discord.File = discord.utils.MISSING,
    embed: discord.Embed = discord.utils.MISSING,
) -> None:
    """Tell the one who asked, and nobody else, whether or not the interaction was acknowledged."""
    more: dict[str, Any] = {"view": view, "file": file, "embed": embed}
    if interaction.response.is_done():
        await interaction.followup.send(text, ephemeral=True, **more)
    else:
        await interaction.response.send_message(text, ephemeral=True, **more)


async def acknowledge(interaction: discord.Interaction[Any], *, publicly: bool = False) -> None:
    """Say that an answer comes, unless that was said already."""
    if not interaction.response.is_done():
        await interaction.response.defer(ephemeral=not publicly, thinking=True)


async def in_time(
    interaction: discord.Interaction[Any],
    work: Awaitable[T],
    *,
    publicly: bool = False,
    patience_s: float | None = None,
) -> T:
    """Wait for work; if it takes longer than a moment, acknowledge first and go on waiting."""
    task = asyncio.ensure_future(work)
    await asyncio.wait({task}, timeout=PATIENCE_S if patience_s is None else patience_s)
    if not task.done():
        await acknowledge(interaction, publicly=publicly)
    return await task


async def show_form(interaction: discord.Interaction[Any], form: discord.ui.Modal) -> None:
    """Open a form; Discord takes one as the first answer only, so a late one is not shown."""
    if interaction.response.is_done():
        await tell(interaction, words.FORM_TOO_LATE)
    else:
        await interaction.response.send_modal(form)


def guarded(
    callback: Callable[P, Coroutine[Any, Any, None]],
) -> Callable[P, Coroutine[Any, Any, None]]:
    """Turn what goes wrong in a component's or modal's callback into one plain sentence.

    The interaction must be among the positional arguments.
    """

    @wraps(callback)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        interaction = next(arg for arg in args if isinstance(arg, discord.Interaction))
        try:
            await callback(*args, **kwargs)
        except Exception as error:
            await explain(interaction, error)  # whoever pressed must not be left without a word

    return wrapper


async def explain(interaction: discord.Interaction[Any], error: BaseException) -> None:
    """Tell the one who asked what failed; what nobody foresaw is logged with its trace."""
    if isinstance(error, app_commands.CheckFailure):
        text = str(error)
    elif isinstance(error, ThumbtuneError):
        text = words.failed(str(error))
    elif isinstance(error, discord.Forbidden):
        text = words.FORBIDDEN
    else:
        log.error("an interaction failed", exc_info=error)
        text = words.UNFORESEEN
    try:
        await tell(interaction, text)
    except discord.HTTPException as gone:
        log.warning("could not tell what failed: %s", gone)
