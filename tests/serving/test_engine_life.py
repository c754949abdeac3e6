"""The engine's loads, ends and failures: nobody is dropped, nobody hangs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bot.running import threads_beside_training
from core.errors import EngineStopped, UnknownAdapter
from core.processors import available_cores
from core.sections import TrainingSettings
from core.settings import Settings
from serving.batch import Draw, Pass
from serving.engine import LocalEngine
from tests.serving.reference import NAMES, Reference, answer, greedy


async def test_unload_refuses_at_once_and_waits(loaded: LocalEngine, reference: Reference) -> None:
    """New requests are refused while the last reply still runs to its end."""
    name = NAMES[0]
    running = loaded.generate(greedy("slow", name, 60))
    leaving = asyncio.create_task(loaded.unload(name))
    await asyncio.sleep(0)
    with pytest.raises(UnknownAdapter):
        loaded.generate(greedy("hi", name))
    assert not leaving.done()
    assert (await running.result()).token_ids == reference.tokens("slow", name, 60)
    await leaving


async def test_loading_again_stops_an_unload(
    loaded: LocalEngine, adapters: dict[str, Path]
) -> None:
    """An adapter loaded again while it waits to leave stays."""
    name = NAMES[0]
    running = loaded.generate(greedy("slow", name, 200))
    leaving = asyncio.create_task(loaded.unload(name))
    await asyncio.sleep(0)
    await loaded.load(name, adapters[name])
    await leaving
    assert name in loaded.stats().adapters
    running.cancel()


async def test_close_cancels_and_is_idempotent(engine: LocalEngine) -> None:
    """Closing ends running replies as cancelled; afterwards nothing is accepted."""
    stream = engine.generate(greedy("hi", tokens=400))
    await engine.close()
    await engine.close()
    assert (await stream.result()).finish_reason == "cancelled"
    with pytest.raises(EngineStopped, match="closed"):
        engine.generate(greedy("hi"))


async def test_a_failing_step_ends_its_replies_only(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch, reference: Reference
) -> None:
    """Replies in a failing step end with `error`, the next request is served."""
    worker = engine._worker
    assert worker is not None

    passes = worker.batch.passes

    def out_of_memory() -> list[Draw]:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(
        worker.batch, "passes", lambda: (Pass(out_of_memory, step.rows) for step in passes())
    )
    assert (await answer(engine, greedy("hi"))).finish_reason == "error"
    monkeypatch.undo()
    assert (await answer(engine, greedy("hi"))).token_ids == reference.tokens("hi")


async def test_a_dead_thread_hangs_nobody(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the model thread dies, streams, results and new calls raise EngineStopped."""
    worker = engine._worker
    assert worker is not None
    stream = engine.generate(greedy("hi", tokens=400))

    def broken() -> None:
        raise AssertionError("broken loop")

    monkeypatch.setattr(worker, "_admit", broken)
    with pytest.raises(EngineStopped, match="broken loop"):
        await stream.result()
    with pytest.raises(EngineStopped):
        async for _ in stream:
            pass
    with pytest.raises(EngineStopped):
        engine.generate(greedy("hi"))
    with pytest.raises(EngineStopped):
        await engine.set_threads(2)


async def test_threads_are_set_between_steps(loaded: LocalEngine) -> None:
    """The number of threads may change while a reply is written."""
    stream = loaded.generate(greedy("hi", NAMES[0], 30))
    await loaded.set_threads(1)
    assert (await stream.result()).finish_reason in {"stop", "length"}


async def test_who_shares_cores_keeps_them_beside_a_run(
    engine: LocalEngine, request: pytest.FixtureRequest
) -> None:
    """The compiled decoder's threads bear a neighbour that stands back, an OpenMP pool does not."""
    compiled = "compiled" in request.node.name
    settings = Settings(training=TrainingSettings(threads=available_cores()))
    wanted = settings.serving_threads if compiled else 1
    assert engine.shares_cores is compiled
    assert threads_beside_training(settings, engine) == wanted


async def test_loading_again_holds_no_second_copy(
    loaded: LocalEngine, adapters: dict[str, Path], reference: Reference
) -> None:
    """The same content again changes nothing, and what was made for it is dropped."""
    worker = loaded._worker
    assert worker is not None
    packed = getattr(worker.batch, "_packed", {})
    before = len(packed)
    for _ in range(3):
        await loaded.load(NAMES[0], adapters[NAMES[0]])
    assert len(packed) == before
    assert (await answer(loaded, greedy("hi", NAMES[0]))).token_ids == reference.tokens(
        "hi", NAMES[0]
    )
