"""A process that kills itself with SIGKILL at a named point of the loop. Run by test_crash.py.

Usage: python -m tests.bot.crash_child POINT DATA_DIR MODEL. The points are functions below; each
does real work with real parts and dies in the middle of it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bot.adapters import promote, roll_back
from bot.world import make_learning, open_database, open_world
from core.settings import Settings
from tests.bot.conftest import tiny_settings
from tests.bot.test_learning import SCOPE, tiny_base


def die(*_: Any, **__: Any) -> None:
    """End this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_before(owner: Any, name: str, when: Callable[..., bool] = lambda *_, **__: True) -> None:
    """Make `owner.name` die instead of running, when the arguments fit."""
    real = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if when(*args, **kwargs):
            die()
        return real(*args, **kwargs)

    setattr(owner, name, wrapped)


async def reply(settings: Settings) -> None:
    """Die in the middle of streaming a reply, having told a first vote."""
    async with open_world(settings, lambda _: None) as world:
        ada = await world.database.run(
            lambda db: db.people.ensure("console", "ada", consent="given")
        )
        conversation = await world.chat.open(SCOPE, ada)
        first = await (await world.chat.say(conversation, ada.id, "First")).finished()
        await world.feedback.up(first.id, ada.id)
        async for _ in await world.chat.say(conversation, ada.id, "Second"):
            die()


async def vote(settings: Settings) -> None:
    """Die inside the transaction of a second vote, the first one being stored."""
    import storage.events

    async with open_world(settings, lambda _: None) as world:
        ada = await world.database.run(
            lambda db: db.people.ensure("console", "ada", consent="given")
        )
        conversation = await world.chat.open(SCOPE, ada)
        first = await (await world.chat.say(conversation, ada.id, "First")).finished()
        await world.feedback.up(first.id, ada.id)
        kill_before(storage.events.EventStore, "add")
        await world.feedback.down(first.id, ada.id, "rude")


async def snapshot(settings: Settings) -> None:
    """Die with the job directory written but not renamed into place."""
    kill_before(os, "rename", lambda source, target: "runs" in str(target))
    await _retrain(settings)


async def lineage(settings: Settings) -> None:
    """Die with the job directory in place and its lineage not stored."""
    from storage.runs import RunStore

    kill_before(RunStore, "set_examples")
    await _retrain(settings)


async def training(settings: Settings) -> None:
    """Die while the job trains."""
    await _retrain(settings, lambda progress: die() if progress.step >= 1 else None)


async def report(settings: Settings) -> None:
    """Die when the job has trained and its report is being written."""
    await _retrain(settings, lambda progress: die() if progress.stage.startswith("eval") else None)


async def publish(settings: Settings) -> None:
    """Die with the adapter copied but not renamed into place."""
    kill_before(os, "rename", lambda source, target: "adapters" in str(target))
    await _retrain(settings)


async def row(settings: Settings) -> None:
    """Die inside the transaction that adds the adapter's row, its directory being published."""
    from storage.adapters import AdapterStore

    kill_before(AdapterStore, "promote")
    await _retrain(settings)


async def promotion(settings: Settings) -> None:
    """Die inside the promotion's transaction, the states being set and the pointer not."""
    _kill_in_flip()
    async with open_database(settings) as database:
        await promote(database, settings.data_dir, f"{SCOPE}@v1", actor="test")


async def rollback(settings: Settings) -> None:
    """Die inside the rollback's transaction."""
    _kill_in_flip()
    async with open_database(settings) as database:
        await roll_back(database, settings.data_dir, SCOPE, actor="test")


async def decision(settings: Settings) -> None:
    """Die inside the transaction in which votes decide a trial, the trial being closed."""
    from tests.bot.test_canary import add_thumbs

    async with open_database(settings) as database:
        await database.run(lambda db: db.adapters.rollback(SCOPE, actor="test"))
        await database.run(
            lambda db: db.adapters.begin_trial(f"{SCOPE}@v1", share=0.5, actor="gate")
        )
        await database.run(lambda db: add_thumbs(db, {True: 0.9, False: 0.2}))
    _kill_in_flip()
    async with open_world(settings, lambda _: None):
        sys.exit("the start decided nothing")


def _kill_in_flip() -> None:
    from storage.events import EventStore

    kill_before(
        EventStore, "add", lambda _self, _actor, action, *_, **__: action.startswith("adapter.")
    )


async def _retrain(settings: Settings, on_progress: Callable[[Any], None] = lambda _: None) -> None:
    async with open_database(settings) as database:
        learning = make_learning(settings, database, tiny_base(settings))
        await learning.retrain(SCOPE, actor="test", on_progress=on_progress)


if __name__ == "__main__":
    point, data_dir, model = sys.argv[1:]
    asyncio.run(globals()[point](tiny_settings(Path(data_dir), Path(model))))
    sys.exit("the point was never reached")
