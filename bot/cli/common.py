"""What every command shares: options, printing for people or programs, exit codes.

With `--json` a command prints one JSON object as its last line on standard output; everything for
people goes to standard error then.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import signal
import sys
from collections.abc import Callable, Coroutine
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel
from rich.console import Console

from core.errors import ConfigError, ThumbtuneError
from core.settings import Settings, load_settings

T = TypeVar("T")

DEFAULT_SCOPE = "console"


class Exit(IntEnum):
    """The exit codes of every command (2 is a usage error, by the command-line library)."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    CONFIG = 4
    CANCELLED = 5
    INTERRUPTED = 130


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", envvar="THUMBTUNE_CONFIG", help="The settings file.", show_default="config.toml"
    ),
]
DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="THUMBTUNE_DATA_DIR",
        help="Where database, models and adapters are kept.",
        show_default="var beside the settings file",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON object, as the last line.")
]
ScopeOption = Annotated[str, typer.Option("--scope", help="Whose feedback and adapters.")]


class Output:
    """Where a command speaks: `console` for people, `result` for the one outcome."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(stderr=as_json, highlight=False)

    def say(self, text: str) -> None:
        """Tell people one line; in a log it stays one."""
        self.console.print(text, markup=False, soft_wrap=not self.console.is_terminal)

    def result(self, value: Any) -> None:
        """Print the outcome for programs, if they asked for it."""
        if self.as_json:
            sys.stdout.write(json.dumps(plain(value), ensure_ascii=False) + "\n")
            sys.stdout.flush()


def plain(value: Any) -> Any:
    """Turn records, models and paths into what JSON can hold."""
    if isinstance(value, BaseModel):
        return plain(value.model_dump())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def settings_or_exit(config: Path | None, data_dir: Path | None) -> Settings:
    """Read the settings, or print every fault and leave with exit code 4."""
    try:
        return load_settings(config, data_dir)
    except ConfigError as error:
        console = Console(stderr=True, highlight=False)
        console.print("The configuration cannot be used:", style="bold red")
        for problem in error.problems:
            console.print(f"  • {problem}", markup=False, soft_wrap=True)
        raise typer.Exit(Exit.CONFIG) from None


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a command's coroutine; one plain sentence and an exit code for every failure foreseen."""
    try:
        return asyncio.run(main())
    except ThumbtuneError as error:
        Console(stderr=True, highlight=False).print(
            f"thumbtune: {error}", markup=False, soft_wrap=True
        )
        raise typer.Exit(Exit.FAILED) from None
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None


def stop_signal() -> asyncio.Event:
    """Return what is set once the process is told to stop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    return stop
