"""The async face: one thread opens and uses the database, the event loop awaits it.

Invariant: calls run in the order they were made, one at a time; closing runs those already queued
first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from core.errors import StorageError
from storage.database import Database

T = TypeVar("T")


class AsyncDatabase:
    """A database with a thread of its own. All methods run on the event loop."""

    def __init__(
        self,
        path: Path,
        *,
        key: str | None = None,
        busy_timeout_s: float = 10.0,
        keep_backups: int = 5,
    ) -> None:
        self.path = path
        self._make = lambda: Database(
            path, key=key, busy_timeout_s=busy_timeout_s, keep_backups=keep_backups
        )
        self._thread: ThreadPoolExecutor | None = None
        self._database: Database | None = None

    async def open(self) -> AsyncDatabase:
        """Start the thread and open the database in it. Raises what Database raises."""
        if self._thread is None:
            thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="database")
            try:
                self._database = await asyncio.get_running_loop().run_in_executor(
                    thread, self._make
                )
            except BaseException:
                thread.shutdown(wait=False)
                raise
            self._thread = thread
        return self

    async def run(self, call: Callable[[Database], T]) -> T:
        """Run `call(database)` in the database's thread and return its result.

        What `call` writes is stored when this returns. Raises StorageError once closed.
        """
        thread, database = self._thread, self._database
        if thread is None or database is None:
            raise StorageError(f"{self.path}: the database is closed; open it first")
        return await asyncio.get_running_loop().run_in_executor(thread, call, database)

    async def close(self) -> None:
        """Finish what is queued, close the database and end the thread. Idempotent."""
        thread, database = self._thread, self._database
        self._thread = self._database = None
        if thread is None or database is None:
            return
        await asyncio.get_running_loop().run_in_executor(thread, database.close)
        thread.shutdown(wait=True)

    async def __aenter__(self) -> AsyncDatabase:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()
