"""One process at a time serves Discord from a data directory.

Two would answer each message twice. The kernel lets go of the lock when the process ends, however
it ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.errors import ConfigError
from core.files import advisory_lock

LOCK = "discord.lock"


@contextmanager
def only_server(data_dir: Path) -> Iterator[None]:
    """Be the only process that serves Discord from here, or raise ConfigError at once."""
    with advisory_lock(data_dir / LOCK) as held:
        if not held:
            raise ConfigError(
                [
                    f"{data_dir}: another process serves Discord from this data directory; stop "
                    "it first, or do without DISCORD_TOKEN here"
                ]
            )
        yield
