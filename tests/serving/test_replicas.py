"""Several engines under Ray Serve behind one: nothing dropped, nothing mixed, whoever dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from core.basemodel import BaseModel
from core.errors import AdapterRefused, EngineBusy, EngineStopped, ModelError, UnknownAdapter
from core.generation import BASE
from core.manifest import WEIGHTS
from core.sections import ReplicaSettings, ServingSettings
from serving.replicas import ReplicaEngine
from serving.wire import ReplicaSpec, Report
from tests.serving.ray_session import ray_session
from tests.serving.reference import NAMES, Reference, greedy
from tests.tiny import publish_tiny_adapter

WAIT_S = 240
"""How long anything may take on a busy machine."""
REPLIES, PROMOTIONS, TOKENS = 100, 10, 24


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The tests' own Ray."""
    with ray_session() as found:
        yield found


def spec_for(base: BaseModel, **replicas: object) -> ReplicaSpec:
    """Two replicas of one thread each, which stay for the next test."""
    return ReplicaSpec(
        base=base,
        dtype="float32",
        device="cpu",
        serving=ServingSettings(max_batch=8, max_queue=84, max_context_tokens=512, max_adapters=2),
        replicas=ReplicaSettings.model_validate(
            {"min": 2, "max": 2, "target_replies": 8.0, "keep": True, **replicas}
        ),
        threads=1,
    )


@asynccontextmanager
async def started(spec: ReplicaSpec) -> AsyncIterator[ReplicaEngine]:
    """Open an engine on these replicas."""
    engine = ReplicaEngine(spec, threads=2)
    try:
        await engine.start()
        yield engine
    finally:
        await engine.close()


@pytest_asyncio.fixture
async def pair(address: str, tiny_base: BaseModel) -> AsyncIterator[ReplicaEngine]:
    """An engine on two replicas, found again by each test, both there."""
    async with started(spec_for(tiny_base)) as engine:
        await until(engine, lambda seen: len(seen) == 2)
        yield engine


async def reports(engine: ReplicaEngine) -> dict[str, Report]:
    """Return what each replica that takes requests said last."""
    found = await engine._running().call("reports")
    return {report.member: report for report in found if report.ready}


async def until(engine: ReplicaEngine, true: Callable[[dict[str, Report]], bool]) -> Any:
    """Wait until the replicas' reports are so; return them."""
    async with asyncio.timeout(WAIT_S):
        while not true(seen := await reports(engine)):
            await asyncio.sleep(0.05)
        return seen


def kill(member: str, app: str = "thumbtune") -> None:
    """Kill a replica as a crash does."""
    import ray

    actor = ray.get_actor(f"SERVE_REPLICA::{app}#Replica#{member}", namespace="serve")
    ray.kill(actor, no_restart=False)


async def text_of(engine: ReplicaEngine, adapter: str = BASE) -> tuple[int, ...]:
    """Return the tokens of one reply."""
    return (await engine.generate(greedy("Hello", adapter)).result()).token_ids


async def test_promotions_under_a_hundred_replies(
    pair: ReplicaEngine, adapters: dict[str, Path], reference: Reference
) -> None:
    """None is dropped and none mixed: each is to the token what its one version writes."""
    live, over, done = NAMES[0], False, []
    await pair.load(live, adapters[live])

    async def talk(number: int) -> None:
        while not over or len(done) < REPLIES:
            case = (f"chat {number % 8}", live, TOKENS)
            stream = pair.generate(greedy(*case))
            text = "".join([piece async for piece in stream])
            done.append((case, text, await stream.result()))

    chats = [asyncio.create_task(talk(number)) for number in range(16)]
    for number in range(1, PROMOTIONS + 1):
        new = NAMES[number % 3]
        await pair.load(new, adapters[new])
        assert all(new in report.held for report in (await reports(pair)).values())
        old, live = live, new
        await pair.unload(old)
    over = True
    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(*chats)
    assert len(done) >= REPLIES and {result.adapter for _, _, result in done} == set(NAMES)
    for case, text, result in done:
        assert (result.adapter, result.text) == (case[1], text)
        assert result.token_ids == reference.tokens(*case)


async def test_a_stopped_reply_frees_its_place(pair: ReplicaEngine) -> None:
    """Stopped, abandoned or late: the text so far stays, and the places are free for others."""
    long = greedy("Hello", tokens=450)
    streams = [pair.generate(long) for _ in range(16)]
    late = pair.generate(replace(long, deadline_s=0.01))
    with pytest.raises(EngineBusy):
        while True:
            streams.append(pair.generate(long))
    begun = await anext(aiter(streams[0]))
    assert streams[0].ahead() == 0 and streams[-1].ahead() > 0
    for stream in streams:
        stream.cancel()
    results = [await stream.result() for stream in streams]
    assert {one.finish_reason for one in results} == {"cancelled"}
    assert results[0].text.startswith(begun) and len(results[0].token_ids) > 0
    assert (await late.result()).finish_reason == "deadline"
    assert pair.stats().active == pair.stats().waiting == 0
    async with asyncio.timeout(WAIT_S):
        assert (await pair.generate(greedy("Hello")).result()).finish_reason in {"stop", "length"}


async def test_a_corrupt_adapter_is_nowhere(
    pair: ReplicaEngine, adapters: dict[str, Path], tiny_base: BaseModel, tmp_path: Path
) -> None:
    """What lies wrong here is not sent; what only a replica can see, no replica keeps."""
    await pair.load(NAMES[0], adapters[NAMES[0]])
    torn, wrong = tmp_path / "torn", tmp_path / "wrong"
    for number, place in enumerate((torn, wrong), start=7):
        name = f"cats@v{number}"
        publish_tiny_adapter(place, tiny_base.path, name, number, base_sha256=tiny_base.sha256)
    (torn / WEIGHTS).write_bytes(b"cut short")
    with pytest.raises(AdapterRefused, match="corrupt or altered"):
        await pair.load("cats@v7", torn)
    spoil(wrong, tiny_base)
    with pytest.raises(AdapterRefused, match=r"values are NaN.*\(replica "):
        await pair.load("cats@v8", wrong)
    seen = await reports(pair)
    assert {tuple(report.held) for report in seen.values()} == {(NAMES[0],)}
    assert pair.stats().adapters == (NAMES[0],)
    with pytest.raises(UnknownAdapter):
        pair.generate(greedy("Hello", "cats@v8"))
    with pytest.raises(AdapterRefused, match="never changes its content"):
        publish_tiny_adapter(
            tmp_path / "other", tiny_base.path, NAMES[0], 9, base_sha256=tiny_base.sha256
        )
        await pair.load(NAMES[0], tmp_path / "other")


def spoil(place: Path, base: BaseModel) -> None:
    """Put a NaN into published weights, and publish them so."""
    import torch
    from safetensors.torch import load_file, save_file

    from core.manifest import MANIFEST, describe_directory, read_manifest

    old = read_manifest(place)
    tensors = load_file(place / WEIGHTS)
    next(iter(tensors.values()))[0, 0] = torch.nan
    save_file(tensors, place / WEIGHTS)
    manifest = describe_directory(
        place, name=old.name, base_model="tiny", base_sha256=base.sha256,
        run_id="run_test", recipe="kto", created_at=old.created_at,
    )  # fmt: skip
    (place / MANIFEST).write_text(manifest.model_dump_json(), encoding="utf-8")


async def test_the_least_used_version_makes_room_everywhere(
    pair: ReplicaEngine, adapters: dict[str, Path], reference: Reference
) -> None:
    """With two places a third version takes that of the one not used; it can come back."""
    for name in NAMES[:2]:
        await pair.load(name, adapters[name])
    await text_of(pair, NAMES[0])
    await pair.load(NAMES[2], adapters[NAMES[2]])
    assert pair.stats().adapters == (NAMES[0], NAMES[2])
    for report in (await reports(pair)).values():
        assert set(report.held) == {NAMES[0], NAMES[2]}
    await pair.load(NAMES[1], adapters[NAMES[1]])
    assert await text_of(pair, NAMES[1]) == reference.tokens("Hello", NAMES[1])


async def test_a_roster_that_dies_takes_no_version_along(
    pair: ReplicaEngine, adapters: dict[str, Path], reference: Reference
) -> None:
    """It comes back empty; replies go on meanwhile and it hears again what everybody holds."""
    import ray

    name = NAMES[0]
    await pair.load(name, adapters[name])
    ray.kill(pair._running()._roster, no_restart=False)
    for _ in range(10):
        assert await text_of(pair, name) == reference.tokens("Hello", name)
    seen = await until(pair, lambda seen: len(seen) == 2)
    assert {tuple(report.held) for report in seen.values()} == {(name,)}
    await pair.load(NAMES[1], adapters[NAMES[1]])
    assert await text_of(pair, NAMES[1]) == reference.tokens("Hello", NAMES[1])


async def test_a_bot_that_comes_back_finds_them_or_replaces_them(
    pair: ReplicaEngine, tiny_base: BaseModel
) -> None:
    """The same replicas for the same settings; others are refused while one is used."""
    before = (await reports(pair)).keys()
    async with started(spec_for(tiny_base)) as again:
        assert (await reports(again)).keys() == before
        other = spec_for(tiny_base)
        other = replace(other, serving=other.serving.model_copy(update={"max_batch": 9}))
        with pytest.raises(ModelError, match="another bot uses them"):
            async with started(other):
                pass


async def test_a_killed_replica_ends_its_replies_and_is_replaced(
    pair: ReplicaEngine, adapters: dict[str, Path], reference: Reference
) -> None:
    """A begun reply is told the loss, the next is answered at once, and the replica that comes
    instead holds every version from its first moment.
    """
    for name in NAMES[:2]:
        await pair.load(name, adapters[name])
    long = greedy("Hello", NAMES[0], 400)
    streams = [pair.generate(long) for _ in range(24)]
    for stream in streams:
        await anext(aiter(stream))
    killed = next(iter(await reports(pair)))
    kill(killed)
    ends = await asyncio.gather(*(one.result() for one in streams), return_exceptions=True)
    lost = [one for one in ends if isinstance(one, EngineStopped)]
    assert lost and all("is lost" in str(one) and "ask again" in str(one) for one in lost)
    assert len(lost) < len(ends)
    assert await text_of(pair, NAMES[0]) == reference.tokens("Hello", NAMES[0])
    seen = await until(pair, lambda seen: len(seen.keys() - {killed}) == 2)
    assert all({*NAMES[:2]} <= seen[one].held.keys() for one in seen.keys() - {killed})


async def test_replicas_come_and_go_in_the_middle_of_promotions(
    address: str, tiny_base: BaseModel, adapters: dict[str, Path], reference: Reference
) -> None:
    """With more talk a second one comes, with less one leaves; not one reply is lost or wrong."""
    about = {"min": 1, "target_replies": 2.0, "grow_after_s": 0.0, "shrink_after_s": 0.0}
    async with started(spec_for(tiny_base, app="grow", keep=False, **about)) as engine:
        await engine.load(NAMES[0], adapters[NAMES[0]])
        live, most = NAMES[0], 8

        async def talk(number: int) -> None:
            while number < most:
                case = ("Hello", live, TOKENS)
                result = await engine.generate(greedy(*case)).result()
                assert result.token_ids == reference.tokens(*case)

        async def promote_until(there: int) -> None:
            nonlocal live
            turn = 0
            while len(await reports(engine)) != there or turn < 3:
                turn, new = turn + 1, NAMES[(NAMES.index(live) + 1) % 3]
                await engine.load(new, adapters[new])
                assert all(new in report.held for report in (await reports(engine)).values())
                old, live = live, new
                await engine.unload(old)

        chats = [asyncio.create_task(talk(number)) for number in range(most)]
        async with asyncio.timeout(WAIT_S):
            await promote_until(2)
            most = 1
            await promote_until(1)
            most = 0
            await asyncio.gather(*chats)


async def test_a_base_that_is_not_the_same_there_is_refused(
    address: str, tiny_base: BaseModel
) -> None:
    """Each replica hashes what it loads; the start says which bytes are wrong."""
    spec = spec_for(tiny_base, app="other", keep=False, min=1)
    with pytest.raises(ModelError, match="put the same files on every node"):
        async with started(replace(spec, base=replace(tiny_base, sha256="0" * 64))):
            pass
