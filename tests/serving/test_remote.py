"""An engine elsewhere: its replies are the far side's, and no fault of the line hangs anybody."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Response

from bot.adapters import promote
from bot.web.server import serving as http_serving
from bot.world import World, open_world
from core.errors import (
    AdapterRefused,
    EngineBusy,
    EngineStopped,
    ModelError,
    UnknownAdapter,
)
from core.generation import GenerationRequest, Message, Sampling
from core.manifest import WEIGHTS
from core.settings import Settings
from serving.remote import RemoteEngine
from tests.bot.api.conftest import Served, served_by, standstill
from tests.bot.api.test_serve import running, serving
from tests.bot.conftest import settings, tiny_settings, world  # noqa: F401 # fixtures
from tests.bot.test_cli import ROOT, Shell
from tests.bot.test_registry import publish, spoken_by
from tests.tiny import publish_tiny_adapter

LONG = GenerationRequest((Message("user", "Hello"),), sampling=Sampling(0.0, max_tokens=400))
SHORT = replace(LONG, sampling=Sampling(0.0, max_tokens=12))

pytestmark = pytest.mark.usefixtures("hasty")


@pytest.fixture
async def far(world: World) -> AsyncIterator[Served]:  # noqa: F811
    """The far side, on a socket."""
    async with served_by(world) as served:
        yield served


@asynccontextmanager
async def engine_for(url: str, world: World, **about: object) -> AsyncIterator[RemoteEngine]:  # noqa: F811
    """Open an engine on this address with the same base."""
    bounds = world.settings.serving.model_copy(update={"remote_url": url, **about})
    engine = RemoteEngine(world.base, settings=bounds, key=None)
    try:
        await engine.start()
        yield engine
    finally:
        await engine.close()


async def test_a_reply_is_the_far_sides(far: Served) -> None:
    """Token for token as it writes it itself, with its counts; our seed is the one it used."""
    own = await far.world.engine.generate(SHORT).result()
    async with engine_for(f"{far.url}/v1", far.world) as engine:
        stream = engine.generate(SHORT)
        text = "".join([piece async for piece in stream])
        got = await stream.result()
    assert (text, got.text, got.finish_reason) == (own.text, own.text, own.finish_reason)
    assert (len(got.token_ids), got.prompt_tokens) == (len(own.token_ids), own.prompt_tokens)
    stored = await far.world.database.run(lambda db: db.replies.recent("api", 1))
    assert stored[0].seed == got.seed


async def test_leaving_and_lateness_free_the_far_side(far: Served) -> None:
    """A cancelled reply and one past its deadline end here at once, and there too."""
    async with engine_for(f"{far.url}/v1", far.world) as engine:
        with standstill(far.world):
            left, late = engine.generate(LONG), engine.generate(replace(LONG, deadline_s=0.3))
            while len(far.state.running) < 2:
                await asyncio.sleep(0.01)
            left.cancel()
            (unbegun := engine.generate(LONG)).cancel()
            async with asyncio.timeout(5):
                assert (await unbegun.result()).finish_reason == "cancelled"
            ends = [(await one.result()).finish_reason for one in (left, late)]
            assert ends == ["cancelled", "deadline"] and engine.stats().active == 0
        async with asyncio.timeout(5):
            while far.state.running:
                await asyncio.sleep(0.01)


async def test_a_reply_that_is_left_at_once_ends(far: Served) -> None:
    """Even before anything of it was sent."""
    async with engine_for(f"{far.url}/v1", far.world) as engine:
        stream = engine.generate(LONG)
        stream.cancel()
        assert (await asyncio.wait_for(stream.result(), 20)).finish_reason == "cancelled"


async def test_what_the_far_side_refuses_is_refused_here(far: Served) -> None:
    """Its full queue is busy, ours too; a version that is not loaded is unknown."""
    async with engine_for(f"{far.url}/v1", far.world, max_queue=20) as engine:
        with standstill(far.world):
            held = [far.world.engine.generate(LONG) for _ in range(8)]
            with pytest.raises(EngineBusy):
                await engine.generate(SHORT).result()
            for one in held:
                one.cancel()
        with pytest.raises(UnknownAdapter, match="api@v9"):
            engine.generate(replace(SHORT, adapter="api@v9"))


async def test_an_adapter_is_the_far_sides_own_copy(far: Served, tmp_path: Path) -> None:
    """It is asked for by its place; one that is not there, or not sound, is refused."""
    name = await publish(far.world, 1, seed=1, scope="shop")
    async with engine_for(f"{far.url}/v1", far.world) as engine:
        base = await engine.generate(SHORT).result()
        for _ in range(2):
            await engine.load(name, tmp_path / "adapters" / "shop" / "v1")
        got = await engine.generate(replace(SHORT, adapter=name)).result()
        assert got.adapter == name and got.text != base.text
        assert far.world.engine.stats().adapters == (name,) == engine.stats().adapters
        await engine.unload(name)
        assert far.world.engine.stats().adapters == () == engine.stats().adapters
        with pytest.raises(AdapterRefused, match="shop@v2: cannot be sent"):
            await engine.load("shop@v2", tmp_path / "adapters" / "shop" / "v2")


def names_in(place: Path) -> list[str]:
    """Return what lies in a directory."""
    return sorted(path.name for path in place.iterdir())


async def test_an_adapter_that_the_far_side_has_not_is_sent(far: Served, tmp_path: Path) -> None:
    """It speaks there as here; one that is not sound is refused, and nothing of it stays."""
    base, home = far.world.base, far.world.settings.data_dir / "adapters"
    for number in (1, 2):
        place, name = tmp_path / "here" / f"v{number}", f"shop@v{number}"
        place.parent.mkdir(exist_ok=True)
        publish_tiny_adapter(place, base.path, name, number, base_sha256=base.sha256)
    (tmp_path / "here" / "v2" / WEIGHTS).write_bytes(b"cut short")
    async with engine_for(f"{far.url}/v1", far.world) as engine:
        await engine.load("shop@v1", tmp_path / "here" / "v1")
        got = await engine.generate(replace(SHORT, adapter="shop@v1")).result()
        assert got.text != (await engine.generate(SHORT).result()).text
        with pytest.raises(AdapterRefused, match="corrupt or altered"):
            await engine.load("shop@v2", tmp_path / "here" / "v2")
    assert names_in(home / "shop") == ["v1"]


async def test_a_start_without_a_far_side_is_a_plain_refusal(far: Served) -> None:
    """Nobody there, another base, no key: each says what to do."""
    with pytest.raises(ModelError, match=r"connection to http://127.0.0.1:1/v1 is lost"):
        async with engine_for("http://127.0.0.1:1/v1", far.world):
            pass
    other = replace(far.world, base=replace(far.world.base, sha256="0" * 64))
    with pytest.raises(ModelError, match="fits one base only"):
        async with engine_for(f"{far.url}/v1", other):
            pass
    await far.key("web")
    with pytest.raises(ModelError, match="set THUMBTUNE_REMOTE_KEY"):
        async with engine_for(f"{far.url}/v1", far.world):
            pass


async def test_what_is_not_understood_ends_the_reply(world: World) -> None:  # noqa: F811
    """Whoever listens there and answers nonsense: the person is told, nothing hangs."""
    app = FastAPI()
    answers = iter([b"data: {}\n\n", b"data: {\n\n", b"", b"data: [DONE]\n\n"])

    @app.get("/v1/models")
    async def models() -> Any:
        return {"data": [{"id": "base", "sha256": world.base.sha256}]}

    @app.post("/v1/chat/completions")
    async def complete() -> Response:
        return Response(next(answers), media_type="text/event-stream")

    async with http_serving(app, host="127.0.0.1", port=0) as url:
        async with engine_for(f"{url}/v1", world) as engine:
            for _ in range(2):
                with pytest.raises(EngineStopped, match="what is not understood"):
                    await asyncio.wait_for(engine.generate(SHORT).result(), 5)
            end = await asyncio.wait_for(engine.generate(SHORT).result(), 5)
            assert (end.text, end.finish_reason) == ("", "error")
        with pytest.raises(ModelError, match="it names no base"):
            async with engine_for(url, world):
                pass


@pytest.fixture
def shell(tmp_path: Path, tiny_model: Path) -> Shell:
    """A shell in the far side's empty world."""
    home = tmp_path / "far"
    home.mkdir()
    return Shell(home, tiny_model)


def near(tmp_path: Path, model: Path, url: str) -> Settings:
    """Settings of this side."""
    own = tiny_settings(tmp_path / "near", model)
    serving_settings = own.serving.model_copy(update={"backend": "remote", "remote_url": url})
    return own.model_copy(update={"serving": serving_settings})


async def test_a_far_side_that_dies_and_comes_back(
    shell: Shell, tmp_path: Path, tiny_model: Path
) -> None:
    """In the middle of a reply: the person is told, the row says why, and the next one is answered
    by whoever listens there then.
    """
    place = (str(shell.config), str(shell.home / "world"))
    with running("tests.bot.api.frozen_child", *place) as frozen:
        url = frozen.said["url"]
        async with open_world(near(tmp_path, tiny_model, url), lambda _: None) as here:
            ada = await here.database.run(
                lambda db: db.people.ensure("console", "ada", consent="given")
            )
            talk = await here.chat.open("console", ada)
            writing = await here.chat.say(talk, ada.id, "Hello")
            await asyncio.sleep(0.5)
            frozen.process.kill()
            with pytest.raises(EngineStopped, match="is lost"):
                await asyncio.wait_for(writing.finished(), 20)
            row = await here.database.run(lambda db: db.replies.get(writing.reply.id))
            assert row.state == "failed"
            port = url.removesuffix("/v1").rpartition(":")[2]
            with serving(shell, "--port", port):
                again = await (await here.chat.answer(talk)).finished()
                assert again.state == "done" and again.tokens > 0


async def test_a_promotion_here_speaks_through_the_far_side(
    far: Served, tmp_path: Path, tiny_model: Path
) -> None:
    """While the line is down the adapter is not taken back; its first reply loads it."""
    url = f"{far.url}/v1"
    async with open_world(near(tmp_path, tiny_model, url), lambda _: None) as here:
        ada = await here.database.run(lambda db: db.people.ensure("console", "a", consent="given"))
        assert await spoken_by(here, ada) == "base"
        name = await publish(here, 1, seed=1)
        await publish(far.world, 1, seed=1)
        engine = here.engine
        assert isinstance(engine, RemoteEngine)
        engine._url = "http://127.0.0.1:1/v1"
        await promote(here.database, here.settings.data_dir, name, actor="test")
        await here.registry.sync()
        engine._url = url
        assert await spoken_by(here, ada) == name


def test_this_side_needs_no_torch(shell: Shell, tmp_path: Path, tiny_model: Path) -> None:
    """A whole chat in another process, and the library was never loaded there."""
    with serving(shell) as far_side:
        script = _CHAT.format(data=str(tmp_path / "near"), model=str(tiny_model))
        done = subprocess.run(
            [sys.executable, "-c", script, far_side.said["url"]],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.stdout.split() == ["done", "False"], done.stderr


_CHAT = """
import asyncio, sys
from pathlib import Path
from bot.world import open_world
from core.manifest import WEIGHTS
from core.settings import Settings
async def main():
    settings = Settings.model_validate({{
        "data_dir": Path({data!r}), "model": {{"source": {model!r}}},
        "serving": {{"backend": "remote", "remote_url": sys.argv[1]}},
    }})
    async with open_world(settings, lambda _: None) as world:
        ada = await world.database.run(lambda db: db.people.ensure("console", "ada"))
        talk = await world.chat.open("console", ada)
        reply = await (await world.chat.say(talk, ada.id, "Hello")).finished()
        print(reply.state, "torch" in sys.modules)
asyncio.run(main())
"""
