"""`thumbtune console-password`: set what the web console asks for."""

from __future__ import annotations

import sys

import typer

from bot.cli.common import (
    ConfigOption,
    DataDirOption,
    JsonOption,
    Output,
    run,
    settings_or_exit,
)
from bot.console.password import store_password


def console_password(
    config: ConfigOption = None, data_dir: DataDirOption = None, as_json: JsonOption = False
) -> None:
    """Set the password of the web console, typed twice or piped in; only its hash is kept."""
    settings = settings_or_exit(config, data_dir)
    output = Output(as_json)

    async def main() -> None:
        path = store_password(settings.data_dir, _given())
        output.say(f"kept as a hash in {path}; start Thumbtune again, and the console asks for it")
        output.result({"file": path})

    run(main)


def _given() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    typed: str = typer.prompt(
        "Password of the web console", hide_input=True, confirmation_prompt=True, err=True
    )
    return typed
