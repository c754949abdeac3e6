"""The database: one connection, one store for each noun.

A Database belongs to the thread that made it. Everything above it that runs an event loop uses
storage.aio instead.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from storage.adapters import AdapterStore
from storage.canary import CanaryStore
from storage.connection import Connection, connect
from storage.conversations import ConversationStore
from storage.copies import copy_database
from storage.events import EventStore
from storage.feedback import FeedbackStore
from storage.groups import GroupStore
from storage.imports import ImportStore
from storage.keys import KeyStore
from storage.people import PeopleStore
from storage.places import PlaceStore
from storage.replies import ReplyStore
from storage.runs import RunStore
from storage.schema import migrate
from storage.scopes import ScopeStore
from storage.trials import TrialStore


class Database:
    """An open database with this version's schema.

    Raises on opening: WrongKey, SchemaTooNew, or StorageError for a file that is damaged, foreign
    or cannot be written. `migrated_from` is the backup made if the schema was older, else None.
    """

    def __init__(
        self,
        path: Path,
        *,
        key: str | None = None,
        busy_timeout_s: float = 10.0,
        keep_backups: int = 5,
    ) -> None:
        self.path = path
        self._key = key or None
        if not path.exists():
            _create(path, self._key)
        self._connection = connect(path, key=self._key, busy_timeout_s=busy_timeout_s)
        try:
            self.migrated_from = migrate(self._connection, key=self._key, keep_backups=keep_backups)
        except BaseException:
            self._connection.close()
            raise
        self.events = EventStore(self._connection)
        self.scopes = ScopeStore(self._connection, self.events)
        self.places = PlaceStore(self._connection, self.events)
        self.feedback = FeedbackStore(self._connection, self.events)
        self.trials = TrialStore(self._connection, self.events, self.feedback)
        self.canary = CanaryStore(self._connection)
        self.adapters = AdapterStore(self._connection, self.events, self.scopes, self.trials)
        self.conversations = ConversationStore(self._connection, self.events, self.adapters)
        self.replies = ReplyStore(self._connection, self.events, self.conversations, self.adapters)
        self.runs = RunStore(self._connection, self.events, self.adapters)
        self.people = PeopleStore(self._connection, self.events, self.adapters)
        self.imports = ImportStore(self._connection, self.people, self.scopes)
        self.keys = KeyStore(self._connection, self.events)
        self.groups = GroupStore(self._connection, self.events)

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def transaction(self) -> AbstractContextManager[None]:
        """Commit every write of the block together, or none of them."""
        return self._connection.transaction()

    def change_counter(self) -> int:
        """Return a number that differs whenever this or another connection has written since.

        Cheap (about 10 µs): it asks for no table. Only equality has a meaning.
        """
        others = int(self._connection.value("PRAGMA data_version"))
        return (others << 32) + self._connection.raw.total_changes

    def backup(self, target: Path) -> Path:
        """Write a whole copy, encrypted as this database is, while everybody goes on.

        Raises InvalidInput if the target exists.
        """
        copy_database(self.path, target, self._key)
        return target

    def close(self) -> None:
        """Close. Idempotent."""
        self._connection.close()


def _create(path: Path, key: str | None) -> None:
    """Make a new database complete under another name, so that a kill never leaves an empty one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        connection: Connection = connect(temporary, key=key)
        try:
            migrate(connection, key=key, keep_backups=1)
        finally:
            connection.close()
        try:
            os.link(temporary, path)
        except FileExistsError:
            return  # another process was first; both open its file
    finally:
        temporary.unlink(missing_ok=True)
