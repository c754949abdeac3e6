"""The parts of one running Thumbtune, put together and taken down in order.

A world is a data directory and its settings: database, base model, engine, chat, feedback,
learning, adapters. Everything that needs the model is opened only when asked for, so that
`thumbtune feedback stats` imports no torch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from bot.canary import CanaryService
from bot.chat import ChatService
from bot.feedback import FeedbackService
from bot.learning import LearningService
from bot.registry import AdapterRegistry
from core.basemodel import BaseModel
from core.files import advisory_lock
from core.garbage import spare_the_loop
from core.generation import Engine
from core.settings import Settings
from storage.aio import AsyncDatabase
from trainer.launchers.choose import make_launcher

Say = Callable[[str], None]
INTERRUPTED = "the bot stopped before the reply was whole"


@dataclass(frozen=True, slots=True)
class World:
    """Everything a face needs. Open one with `open_world`."""

    settings: Settings
    database: AsyncDatabase
    base: BaseModel
    engine: Engine
    registry: AdapterRegistry
    canary: CanaryService
    chat: ChatService
    feedback: FeedbackService
    learning: LearningService


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[AsyncDatabase]:
    """Open the database (making or migrating it), and close it when done."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    key = settings.db_key.get_secret_value() if settings.db_key else None
    database = AsyncDatabase(
        settings.database_path,
        key=key,
        busy_timeout_s=settings.storage.busy_timeout_s,
        keep_backups=settings.storage.keep_backups,
    )
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def prepare_base(settings: Settings, say: Say) -> BaseModel:
    """Find (or fetch, or convert once) the base model, off the event loop."""
    from serving.base import prepare_base as prepare

    return await asyncio.to_thread(prepare, settings.model, settings.data_dir, say)


def make_learning(settings: Settings, database: AsyncDatabase, base: BaseModel) -> LearningService:
    """Build the learning service with the launcher the settings ask for."""
    return LearningService(database, settings, base, make_launcher(settings))


@asynccontextmanager
async def open_world(settings: Settings, say: Say) -> AsyncIterator[World]:
    """Open everything: database, base model, engine with the live adapters, services.

    `say` is told each slow step in a few words. On leaving, running replies are ended and stored.
    """
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings))
        alone = stack.enter_context(advisory_lock(settings.data_dir / "engine.lock"))
        if alone:  # another living engine's replies are still being written
            await database.run(lambda db: db.replies.fail_pending(INTERRUPTED))
        base = await prepare_base(settings, say)
        say(f"loading {base.name}")
        engine = make_engine(settings, base)
        world = await assemble(stack, settings, database, base=base, engine=engine)
        spare_the_loop()
        yield world


async def assemble(
    stack: AsyncExitStack,
    settings: Settings,
    database: AsyncDatabase,
    *,
    base: BaseModel,
    engine: Engine,
) -> World:
    """Put the services around an engine and start them; `stack` takes them down in order."""
    registry = AdapterRegistry(database, engine, settings.data_dir)
    canary = CanaryService(database, registry, settings.canary)
    chat = ChatService(database, engine, registry, canary, settings)
    stack.push_async_callback(chat.close)
    stack.push_async_callback(engine.close)
    stack.push_async_callback(registry.close)
    stack.push_async_callback(canary.close)
    await engine.start()
    await registry.start()
    await canary.start()
    return World(
        settings=settings,
        database=database,
        base=base,
        engine=engine,
        registry=registry,
        canary=canary,
        chat=chat,
        feedback=FeedbackService(database),
        learning=make_learning(settings, database, base),
    )


def make_engine(settings: Settings, base: BaseModel) -> Engine:
    """Build the engine the settings ask for; the only place a face reaches torch through."""
    key = settings.remote_key.get_secret_value() if settings.remote_key else None
    if settings.serving.backend == "remote":
        from serving.remote import RemoteEngine

        return RemoteEngine(base, settings=settings.serving, key=key)
    if settings.serving.backend == "vllm":
        from serving.vllm import VllmEngine

        return VllmEngine(
            base,
            settings=settings.serving,
            key=key,
            data_dir=settings.data_dir,
            lora_rank=settings.training.lora_rank,
        )
    if settings.serving.backend == "ray":
        from serving.replicas import ReplicaEngine
        from serving.wire import ReplicaSpec

        spec = ReplicaSpec(
            base=base,
            dtype=settings.model.dtype,
            device=settings.model.device,
            serving=settings.serving,
            replicas=settings.replicas,
            threads=settings.replica_threads,
        )
        return ReplicaEngine(spec, threads=settings.serving_threads)
    from serving.engine import LocalEngine

    return LocalEngine(
        base,
        settings=settings.serving,
        dtype=settings.model.dtype,
        device=settings.model.device,
        threads=settings.serving_threads,
    )
