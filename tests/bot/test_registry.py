"""The speaking adapter follows the database, whoever flips it; a bad one is taken back."""

from __future__ import annotations

import asyncio
import io
import time
import zipfile
from pathlib import Path

import pytest

from bot.adapters import archive, promote, roll_back, try_out
from bot.registry import Swap
from bot.world import World, open_world
from core.errors import AdapterRefused, Conflict, InvalidInput
from core.manifest import WEIGHTS, read_manifest
from core.records import AdapterRecord, Person
from core.settings import Settings
from storage.database import Database
from storage.scopes import ScopeStore
from tests.tiny import publish_tiny_adapter

SCOPE = "console"


async def publish(world: World, version: int, seed: int, scope: str = SCOPE) -> str:
    """Publish a random adapter as candidate; return its name."""
    name = f"{scope}@v{version}"
    home = Path("adapters") / scope / f"v{version}"
    target = world.settings.data_dir / home
    target.parent.mkdir(parents=True, exist_ok=True)
    publish_tiny_adapter(
        target, world.base.path, name, seed, base_sha256=world.base.sha256, scale=1.0
    )
    record = AdapterRecord(
        name=name,
        scope=scope,
        version=version,
        base_sha256=world.base.sha256,
        run_id=None,
        directory=str(home),
        sha256=read_manifest(target).sha256,
        state="candidate",
        detail="",
        created_at="2026-01-01T00:00:00.000000Z",
    )
    await world.database.run(lambda db: db.adapters.add(record))
    return name


async def spoken_by(world: World, person: Person, scope: str = SCOPE) -> str:
    """Say which adapter answers now."""
    conversation = await world.chat.open(scope, person)
    return (await (await world.chat.say(conversation, person.id, "Hi")).finished()).adapter


async def test_a_promotion_elsewhere_is_followed_within_a_second(world: World, ada: Person) -> None:
    """Another process flips the pointer; new replies use it in under a second."""
    assert await spoken_by(world, ada) == "base"
    name = await publish(world, 1, seed=1)
    swapped: asyncio.Future[Swap] = asyncio.get_running_loop().create_future()
    world.registry.on_swap(swapped.set_result)
    started = time.monotonic()
    await asyncio.to_thread(_promote_in_another_connection, world.settings.database_path, name)
    swap = await asyncio.wait_for(swapped, timeout=5)
    assert time.monotonic() - started < 1.0
    assert (swap.old, swap.new) == ("base", name)
    assert await spoken_by(world, ada) == name


def _promote_in_another_connection(path: Path, name: str) -> None:
    with Database(path) as other:
        other.adapters.promote(name, actor="elsewhere")


async def test_rollback_goes_back_and_forth(world: World, ada: Person) -> None:
    """Rollback to the base and again to the adapter; each speaks at once."""
    name = await publish(world, 1, seed=1)
    await world.registry.speaking(SCOPE)
    data_dir = world.settings.data_dir
    await promote(world.database, data_dir, name, actor="test")
    await world.registry.sync()
    assert await spoken_by(world, ada) == name
    for expected in ("base", name):
        await roll_back(world.database, data_dir, SCOPE, actor="test")
        await world.registry.sync()
        assert await spoken_by(world, ada) == expected


async def test_a_running_reply_keeps_its_adapter(world: World, ada: Person) -> None:
    """A promotion in the middle of a reply changes the next reply, not this one."""
    name = await publish(world, 1, seed=1)
    conversation = await world.chat.open(SCOPE, ada)
    running = await world.chat.say(conversation, ada.id, "Hello")
    await promote(world.database, world.settings.data_dir, name, actor="test")
    await world.registry.sync()
    assert (await running.finished()).adapter == "base"
    assert await spoken_by(world, ada) == name


async def test_a_corrupt_adapter_is_not_promoted(world: World, ada: Person) -> None:
    """A flipped byte is refused before the pointer moves, and the base goes on."""
    name = await publish(world, 1, seed=1)
    weights = world.settings.data_dir / "adapters" / SCOPE / "v1" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    with pytest.raises(AdapterRefused, match="corrupt or altered"):
        await promote(world.database, world.settings.data_dir, name, actor="test")
    assert await spoken_by(world, ada) == "base"


async def test_an_adapter_the_engine_refuses_is_taken_back(world: World, ada: Person) -> None:
    """A pointer flipped to a broken adapter goes back, with an audit line and the reason."""
    assert await spoken_by(world, ada) == "base"
    name = await publish(world, 1, seed=1)
    weights = world.settings.data_dir / "adapters" / SCOPE / "v1" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:100])
    await world.database.run(lambda db: db.adapters.promote(name, actor="test"))
    await world.registry.sync()
    assert await spoken_by(world, ada) == "base"
    record = await world.database.run(lambda db: db.adapters.get(name))
    assert record.state == "refused"
    assert "corrupt or altered" in record.detail


async def test_nothing_to_roll_back_says_so(world: World) -> None:
    """A fresh scope has no previous adapter."""
    await world.registry.speaking(SCOPE)
    with pytest.raises(Conflict, match="nothing to roll back"):
        await roll_back(world.database, world.settings.data_dir, SCOPE, actor="test")


async def test_more_scopes_than_places_all_speak_with_their_own(
    settings: Settings, tmp_path: Path
) -> None:
    """Two places and four servers: each is answered by its own adapter, round and round."""
    few = settings.serving.model_copy(update={"max_adapters": 2})
    scopes = [f"server-{number}" for number in range(4)]
    async with open_world(settings.model_copy(update={"serving": few}), lambda _: None) as world:
        ada = await world.database.run(lambda db: db.people.ensure("console", "ada"))
        names = [await publish(world, 1, seed=seed, scope=one) for seed, one in enumerate(scopes)]
        for name in names:
            await promote(world.database, settings.data_dir, name, actor="test")
        await world.registry.sync()
        for _ in range(2):
            assert [await spoken_by(world, ada, one) for one in scopes] == names


async def test_a_version_is_tried_out_and_archived(world: World) -> None:
    """A trial begins with the share asked for; the zip holds the directory, if it is unaltered."""
    name = await publish(world, 1, seed=1)
    home = world.settings.data_dir
    trial = await try_out(world.database, home, name, share=0.3, actor="test")
    assert (trial.candidate, trial.share) == (name, 0.3)
    with pytest.raises(InvalidInput, match="at most"):
        await try_out(world.database, home, name, share=1.0, actor="test")
    record = await world.database.run(lambda db: db.adapters.get(name))
    target = io.BytesIO()
    archive(record, home, target)
    assert f"console-v1/{WEIGHTS}" in zipfile.ZipFile(target).namelist()
    (home / record.directory / WEIGHTS).write_bytes(b"altered")
    with pytest.raises(AdapterRefused):
        archive(record, home, io.BytesIO())


async def test_a_directory_put_there_by_hand_becomes_a_version(world: World) -> None:
    """It is resident and stored as a candidate; again changes nothing."""
    target = world.settings.data_dir / "adapters" / "shop" / "v4"
    target.parent.mkdir(parents=True)
    base = world.base
    publish_tiny_adapter(target, base.path, "shop@v4", 4, base_sha256=base.sha256)
    record = await world.registry.adopt("shop@v4", target, actor="test")
    assert record == await world.registry.adopt("shop@v4", target, actor="test")
    assert (record.state, record.directory) == ("candidate", "adapters/shop/v4")
    await world.registry.sync()
    await asyncio.sleep(0)
    assert world.engine.stats().adapters == ("shop@v4",)
    assert await world.database.run(lambda db: db.adapters.next_version("shop")) == 5


async def test_a_version_is_not_adopted_from_elsewhere(world: World) -> None:
    """Its name stands for the content it was published with."""
    name = await publish(world, 1, seed=1)
    copy = world.settings.data_dir / "adapters" / "copy"
    publish_tiny_adapter(copy, world.base.path, name, 9, base_sha256=world.base.sha256)
    with pytest.raises(AdapterRefused, match="lies in adapters/console/v1, not in adapters/copy"):
        await world.registry.adopt(name, copy, actor="test")
    assert world.engine.stats().adapters == ()


async def test_a_start_looks_at_the_scopes_once_however_many_there_are(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand servers would otherwise be read a thousand times over."""
    async with open_world(settings, lambda _: None) as world:
        for number in range(30):
            await world.database.run(lambda db, name=f"s{number}": db.scopes.ensure(name))
    looks: list[int] = []
    listed = ScopeStore.list
    monkeypatch.setattr(ScopeStore, "list", lambda store: looks.append(1) or listed(store))
    async with open_world(settings, lambda _: None):
        assert len(looks) < 5
