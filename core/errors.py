"""Every error Thumbtune raises on purpose.

One root, `ThumbtuneError`, so that a face (CLI, Discord, console) can turn any of them into one
plain sentence. Children also inherit the standard error a caller would expect. A message says what
failed, the value, what was expected and what to do.
"""

from __future__ import annotations


class ThumbtuneError(Exception):
    """The root of every error raised on purpose."""


class ConfigError(ThumbtuneError, ValueError):
    """The configuration cannot be used; `problems` holds every fault found, one sentence each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class StorageError(ThumbtuneError):
    """The database cannot be opened, read or written as asked."""


class SchemaTooNew(StorageError):
    """The database was written by a newer Thumbtune."""


class WrongKey(StorageError, PermissionError):
    """The key of an encrypted database is missing or wrong, or a plain one is given a key."""


class NotFound(ThumbtuneError, LookupError):
    """A named thing (reply, run, adapter, person, scope) does not exist."""


class NotRemembered(NotFound):
    """A reply whose text was in memory only, and is there no more (a restart, or lack of room)."""


class InvalidInput(ThumbtuneError, ValueError):
    """What a person or a file gave cannot be used."""


class ModelError(ThumbtuneError, RuntimeError):
    """The base model cannot be found, converted or loaded."""


class AdapterRefused(ThumbtuneError, ValueError):
    """An adapter failed validation and was not loaded; the live one is untouched."""


class UnknownAdapter(NotFound):
    """A request named an adapter that is not resident in the engine."""


class EngineBusy(ThumbtuneError):
    """The queue is full; `waiting` requests stand before this one. Nothing was started."""

    def __init__(self, waiting: int, limit: int) -> None:
        self.waiting = waiting
        self.limit = limit
        super().__init__(
            f"the engine is busy: {waiting} replies are waiting (limit {limit}); "
            "try again in a moment"
        )


class AdaptersFull(EngineBusy):
    """Every place for an adapter is held by one that is pinned or writing a reply."""

    def __init__(self, name: str, limit: int) -> None:
        super().__init__(limit, limit)
        self.args = (
            f"adapter {name}: all {limit} places (serving.max_adapters) hold adapters that are "
            "pinned or writing a reply; try again in a moment, or raise serving.max_adapters",
        )


class EngineStopped(ThumbtuneError, RuntimeError):
    """The engine is closed, or its model thread failed; the message holds the cause."""


class TrainingError(ThumbtuneError, RuntimeError):
    """A training run failed; the message names the stage and the log."""


class RunElsewhere(TrainingError):
    """The machine that a run is on cannot be reached or will not; what is there stays, and the run
    can be taken up again.
    """


class NotEnoughData(ThumbtuneError):
    """There is too little to learn from; the message says what is missing."""


class RunInProgress(ThumbtuneError):
    """The scope already has an active training run."""


class Conflict(ThumbtuneError):
    """The state does not allow the action (promote a refused adapter, roll back with nothing
    before).
    """
