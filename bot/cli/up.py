"""`thumbtune up`: everything in one process: the web console, and Discord where a token is set; on
a terminal it also opens the chat, else it says it serves.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from bot.cli.common import (
    ConfigOption,
    DataDirOption,
    Exit,
    JsonOption,
    Output,
    run,
    settings_or_exit,
    stop_signal,
)
from bot.cli.terminal import Terminal
from bot.running import Housekeeping
from bot.schedule import TrainingSchedule
from bot.world import World, open_world, prepare_base
from core.errors import ConfigError
from core.settings import Settings

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot


def up(
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Do not open the console in a browser.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Start the engine, the schedule, the web console and, with DISCORD_TOKEN, the bot on Discord;
    on a terminal, chat. Ends with Ctrl-C or a termination signal.
    """
    settings = settings_or_exit(config, data_dir)
    output = Output(as_json)
    typed = sys.stdin.isatty() and sys.stdout.isatty()

    async def main() -> None:
        async with (
            running_world(settings, output) as (world, schedule),
            connected(world, output) as bot,
            web_console(world, output, browse=typed and not no_browser) as address,
        ):
            if typed:
                if bot:
                    output.say(_discord_status(bot))
                await Terminal(world, output.console).run()
                return
            stop = stop_signal()
            status = _status(world, schedule.next_time() if schedule.active else None)
            output.say(f"serving: {status}; stop with Ctrl-C")
            if bot:
                output.say(_discord_status(bot))
            output.result(
                {
                    "status": "serving",
                    "pid": os.getpid(),
                    "base": world.base.name,
                    "console": address,
                }
            )
            await stop.wait()
            output.say("stopping")

    run(main)


def prepare(
    config: ConfigOption = None, data_dir: DataDirOption = None, as_json: JsonOption = False
) -> None:
    """Fetch or convert the base model, once, and stop."""
    settings = settings_or_exit(config, data_dir)
    output = Output(as_json)

    async def main() -> None:
        base = await prepare_base(settings, output.say)
        output.say(f"{base.name} is ready in {base.path}")
        output.result(base)

    run(main)


@asynccontextmanager
async def running_world(
    settings: Settings, output: Output
) -> AsyncIterator[tuple[World, TrainingSchedule]]:
    """Open a world with its schedule and housekeeping, as a bot runs it."""
    async with open_world(settings, output.say) as world:
        schedule = TrainingSchedule(world.database, world.learning, settings.schedule)
        housekeeping = Housekeeping(world, output.say)
        try:
            await housekeeping.start()
            await schedule.start()
            yield world, schedule
        finally:
            await schedule.close()
            await housekeeping.close()


@asynccontextmanager
async def connected(world: World, output: Output) -> AsyncIterator[ThumbtuneBot | None]:
    """Serve Discord too where a token is set; settings it refuses end the command with code 4."""
    if world.settings.discord_token is None:
        yield None
        return
    from bot.discord.serve import discord_face  # half a second that other starts need not spend

    logging.getLogger("discord").setLevel(logging.WARNING)
    try:
        async with discord_face(world, output.say) as bot:
            yield bot
    except ConfigError as error:
        output.say(f"thumbtune: {error}")
        raise typer.Exit(Exit.CONFIG) from None


@asynccontextmanager
async def web_console(world: World, output: Output, *, browse: bool) -> AsyncIterator[str | None]:
    """Serve the web console, and the API under the same address, and say where.

    What cannot be served is told, and the rest goes on. Yields the address, or None.
    """
    where = world.settings.console
    if not where.enabled:
        yield None
        return
    from bot.api.app import api_state, beside, create_api
    from bot.console.serve import console_face, has_desktop, open_browser
    from bot.web.guard import is_loopback

    api = create_api(world, private=is_loopback(where.host) and not where.public_url)
    async with AsyncExitStack() as stack:
        address = None
        try:
            face = console_face(world, lambda console: beside(api, console))
            address = await stack.enter_async_context(face)
        except ConfigError as error:
            output.say(f"the web console is off: {error}")
        else:
            stack.push_async_callback(api_state(api).settle)
            output.say(f"Console: {address}")
            output.say(f"API for OpenAI's clients: {address}/v1")
            if browse and has_desktop():
                await open_browser(address)
        yield address


def _discord_status(bot: ThumbtuneBot) -> str:
    count = len(bot.guilds)
    servers = "1 server" if count == 1 else f"{count} servers"
    shards = f" on {bot.shards_up}" if str(bot.shards_up) else ""
    return f"Discord: connected as {bot.user.name if bot.user else '?'} to {servers}{shards}"


def _status(world: World, due: datetime | None) -> str:
    stats = world.engine.stats()
    adapters = ", ".join(stats.adapters) or "none"
    when = f"{due:%Y-%m-%d %H:%M} UTC" if due else "off"
    return f"{world.base.name}, adapters resident: {adapters}, next training look: {when}"
