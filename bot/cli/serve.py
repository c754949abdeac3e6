"""`thumbtune serve`: engine, schedule and the HTTP API in one process, without Discord."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated

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
from bot.cli.up import running_world
from bot.world import World, open_database
from core.errors import ConfigError
from core.sections import ApiSettings
from core.settings import Settings


def serve(
    host: Annotated[
        str | None, typer.Option(help="The address to listen on.", show_default="api.host")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="0 takes a free one.", show_default="api.port")
    ] = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve the OpenAI-compatible HTTP API. Ends with Ctrl-C or a termination signal."""
    settings = settings_or_exit(config, data_dir)
    output = Output(as_json)

    async def main() -> None:
        stop = stop_signal()
        bound = _bound(settings, host, port)
        await _require_key(bound)
        async with running_world(bound, output) as (world, _), api_face(world) as address:
            output.say(f"serving: {address}/v1, {world.base.name}; stop with Ctrl-C")
            output.result(
                {
                    "status": "serving",
                    "url": f"{address}/v1",
                    "pid": os.getpid(),
                    "base": world.base.name,
                }
            )
            await stop.wait()
            output.say("stopping")

    run(lambda: _or_exit(main, output))


async def _or_exit(main: Callable[[], Coroutine[None, None, None]], output: Output) -> None:
    """Run the command; settings that it refuses end it with code 4."""
    try:
        await main()
    except ConfigError as error:
        output.say(f"thumbtune: {error}")
        raise typer.Exit(Exit.CONFIG) from None


@asynccontextmanager
async def api_face(world: World) -> AsyncIterator[str]:
    """Serve a world's API for the time of the block; yields its address.

    On leaving, replies that are being written may end within seconds. Raises ConfigError.
    """
    from bot.api.app import api_state, create_api  # a second that other commands need not spend
    from bot.web.server import serving

    app = create_api(world)
    api = world.settings.api
    async with serving(app, host=api.host, port=api.port) as address:
        try:
            yield address
        finally:
            await api_state(app).settle()


def _bound(settings: Settings, host: str | None, port: int | None) -> Settings:
    """Return the settings with the address of the command line. Raises ConfigError."""
    given = {"host": host, "port": port}
    wanted = settings.api.model_dump() | {k: v for k, v in given.items() if v is not None}
    try:
        api = ApiSettings.model_validate(wanted)
    except ValueError:
        raise ConfigError([f"cannot listen on {host}:{port}: that is no address"]) from None
    return settings.model_copy(update={"api": api})


async def _require_key(settings: Settings) -> None:
    """Refuse to listen where others can reach it while there is no key. Raises ConfigError."""
    from bot.web.guard import is_loopback

    if is_loopback(settings.api.host):
        return
    async with open_database(settings) as database:
        keys = await database.run(lambda db: db.keys.list())
    if not any(key.revoked_at is None for key in keys):
        raise ConfigError(
            [
                f"others can reach {settings.api.host}, and there is no key yet: make one with "
                "`thumbtune keys new NAME`, or listen on 127.0.0.1"
            ]
        )
