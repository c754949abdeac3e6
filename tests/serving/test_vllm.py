"""vLLM writes the replies: what was asked for, from bytes that are known, or a plain refusal."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from fastapi import FastAPI

from bot.web.server import serving as http_serving
from core.basemodel import BaseModel
from core.errors import (
    AdapterRefused,
    AdaptersFull,
    EngineBusy,
    EngineStopped,
    InvalidInput,
    ModelError,
    UnknownAdapter,
)
from core.generation import BASE, GenerationRequest, Message, Sampling
from core.manifest import WEIGHTS, read_manifest
from core.sections import ServingSettings
from serving import elsewhere
from serving import vllm as vllm_module
from serving.vllm import VllmEngine
from tests.bot.test_cli import ROOT
from tests.serving.reference import NAMES
from tests.tiny import make_tiny_model, publish_tiny_adapter
from tests.vllm_double import VllmDouble

ASK = GenerationRequest((Message("user", "Hello"),), sampling=Sampling(0.0, max_tokens=12))
LONG = replace(ASK, sampling=Sampling(0.0, max_tokens=300))
ONE, TWO, THREE = NAMES
SKIP = "VLLM_SKIP_MODEL_NAME_VALIDATION"


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait long between tries."""
    monkeypatch.setattr(elsewhere, "PAUSES_S", (0.05, 0.1))


@pytest_asyncio.fixture
async def vllm(tiny_base: BaseModel) -> AsyncIterator[VllmDouble]:
    """A running server."""
    async with VllmDouble(tiny_base) as running:
        yield running


@asynccontextmanager
async def engine_for(
    vllm: VllmDouble, home: Path, *, key: str | None = None, base: BaseModel | None = None,
    rank: int = 16, **about: Any,
) -> AsyncIterator[VllmEngine]:  # fmt: skip
    """Open an engine on a server; `home` is its data directory."""
    bounds = {"remote_url": vllm.url, "max_context_tokens": 512, "max_queue": 40, **about}
    engine = VllmEngine(
        base or vllm.base, settings=ServingSettings(backend="vllm", **bounds), key=key,
        data_dir=home, lora_rank=rank,
    )  # fmt: skip
    try:
        await engine.start()
        yield engine
    finally:
        await engine.close()


def called(name: str, directory: Path) -> str:
    """Return an adapter's name at vLLM."""
    return f"{name}-{read_manifest(directory).sha256[:16]}"


# -- replies


async def test_a_reply_is_what_the_server_writes(
    vllm: VllmDouble, adapters: dict[str, Path], tmp_path: Path
) -> None:
    """Token for token, under a version and the base, with the server's counts and our seed."""
    async with engine_for(vllm, tmp_path) as engine:
        await engine.load(ONE, adapters[ONE])
        texts = []
        for adapter, inside in (
            (BASE, BASE),
            (ONE, vllm.loras.by_name[called(ONE, adapters[ONE])].inside),
        ):
            drawn = replace(ASK, adapter=adapter, sampling=Sampling(0.9, 0.9, 5, 12, seed=7))
            own = await vllm.engine.generate(replace(drawn, adapter=inside)).result()
            stream = engine.generate(drawn)
            text = "".join([piece async for piece in stream])
            got = await stream.result()
            assert (text, got.text, got.finish_reason) == (own.text, own.text, own.finish_reason)
            assert (len(got.token_ids), got.prompt_tokens) == (
                len(own.token_ids),
                own.prompt_tokens,
            )
            assert (got.adapter, got.seed) == (adapter, 7)
            texts.append(text)
        assert texts[0] != texts[1] and engine.stats().replies_total == 2
        asked = vllm.writer.seen[-1]
        assert {
            "repetition_penalty": 1.0,
            "min_p": 0.0,
            "top_k": 5,
            "seed": 7,
        }.items() <= asked.items()


async def test_a_chat_too_long_loses_its_oldest_messages_here(
    vllm: VllmDouble, tmp_path: Path
) -> None:
    """As the local engine drops them, before anything is sent; a single one too long is cut."""
    chat = tuple(Message("assistant" if i % 2 else "user", f"{i} " + "x" * 90) for i in range(9))
    async with engine_for(vllm, tmp_path, max_context_tokens=256) as engine:
        got = await engine.generate(replace(ASK, messages=(Message("system", "s"), *chat))).result()
        sent = vllm.writer.seen[-1]["messages"]
        assert sent[0]["role"] == "system" and sent[-1]["content"] == chat[-1].content
        assert got.dropped_messages == 9 - (len(sent) - 1) > 0 and got.prompt_tokens <= 244
        await engine.generate(replace(ASK, messages=(Message("user", "y" * 900),))).result()
        assert 100 < len(vllm.writer.seen[-1]["messages"][0]["content"]) < 244
        with pytest.raises(InvalidInput, match="at least one message"):
            await engine.generate(replace(ASK, messages=())).result()


async def test_leaving_and_lateness_free_the_server(vllm: VllmDouble, tmp_path: Path) -> None:
    """A cancelled reply and one past its deadline end here at once, and there too."""
    async with engine_for(vllm, tmp_path) as engine:
        vllm.faults.going.clear()
        left, late = engine.generate(LONG), engine.generate(replace(LONG, deadline_s=0.5))
        while len(vllm.writer.running) < 2:
            await asyncio.sleep(0.01)
        left.cancel()
        ends = [(await one.result()).finish_reason for one in (left, late)]
        assert ends == ["cancelled", "deadline"] and engine.stats().active == 0
        vllm.faults.going.set()
        async with asyncio.timeout(20):
            while vllm.writer.running:
                await asyncio.sleep(0.01)


async def test_faults_in_the_middle_end_a_reply_with_a_word(
    vllm: VllmDouble, tmp_path: Path
) -> None:
    """An error event, a reply given up, a cut line; the next one is answered."""
    async with engine_for(vllm, tmp_path) as engine:
        for fault, said in (
            ("error_after", "Internal server error"),
            ("abort_after", "gave the reply up"),
            ("cut_after", "is lost"),
        ):
            setattr(vllm.faults, fault, 2)
            stream = engine.generate(LONG)
            with pytest.raises(EngineStopped, match=said):
                await stream.result()
            assert [piece async for piece in _so_far(stream)]
            assert (await engine.generate(ASK).result()).finish_reason in ("stop", "length")
        vllm.faults.cut_after = 0
        assert (await engine.generate(ASK).result()).text  # nothing was there yet: asked again


async def _so_far(stream: Any) -> AsyncIterator[str]:
    with contextlib.suppress(EngineStopped):
        async for piece in stream:
            yield piece


async def test_a_full_server_is_busy_and_so_are_we(vllm: VllmDouble, tmp_path: Path) -> None:
    """Its 503 is busy; more than our own bound is busy at once."""
    async with engine_for(vllm, tmp_path, max_batch=1, max_queue=1) as engine:
        vllm.faults.full = 1
        with pytest.raises(EngineBusy):
            await engine.generate(ASK).result()
        vllm.faults.going.clear()
        held = [engine.generate(LONG) for _ in range(2)]
        with pytest.raises(EngineBusy):
            engine.generate(ASK)
        for one in held:
            one.cancel()


async def test_a_line_that_looks_broken_is_not(vllm: VllmDouble, tmp_path: Path) -> None:
    """Only a line feed ends an event, whatever separators a reply holds."""
    async with engine_for(vllm, tmp_path) as engine:
        vllm.faults.text = "one\u2028two\x85three\x0bfour\nfive"
        assert (await engine.generate(ASK).result()).text == "one\u2028two\x85three\x0bfour\nfive"


# -- looking at the server


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"root": "other/model"}, "its base is 'other/model', expected .*serving.vllm_base"),
        ({"max_model_len": 128}, "takes 128 tokens.* --max-model-len 512"),
        ({"runtime_loras": False}, "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"),
        ({"enable_lora": False}, "--enable-lora"),
        ({"max_lora_rank": 8}, "rank 8 at most, training.lora_rank is 16.*--max-lora-rank 16"),
        ({"api_key": "secret"}, "set THUMBTUNE_REMOTE_KEY"),
        (
            {"chat_template": "{% for m in messages %}{{ m['content'] }}{% endfor %}"},
            "reads a chat otherwise.*--chat-template",
        ),
    ],
)
async def test_a_server_that_does_not_fit_is_refused_at_the_start(
    tiny_base: BaseModel, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    """Each with what to change."""
    async with VllmDouble(tiny_base, **options) as vllm:
        with pytest.raises(ModelError, match=said):
            async with engine_for(vllm, tmp_path):
                pass


async def test_a_base_under_another_name_is_taken_where_it_is_said(
    tiny_base: BaseModel, tmp_path: Path
) -> None:
    """`serving.vllm_base` is vLLM's `root`; a key that is right is let in."""
    async with VllmDouble(tiny_base, root="/models/of/ours", api_key="k") as vllm:
        async with engine_for(vllm, tmp_path, vllm_base="/models/of/ours", key="k") as engine:
            assert await engine.look() == (
                "/models/of/ours as 'tiny-base', 512 tokens, adapters up to rank 16"
            )
        with pytest.raises(ModelError, match="expected /models/x"):
            async with engine_for(vllm, tmp_path, vllm_base="/models/x", key="k"):
                pass


async def test_nobody_and_somebody_else_are_refused(tiny_base: BaseModel, tmp_path: Path) -> None:
    """No server, and one that is no vLLM."""
    nobody = VllmDouble(tiny_base)
    nobody._port = 1
    with pytest.raises(ModelError, match=r"is lost.*`vllm serve`"):
        async with engine_for(nobody, tmp_path):
            pass
    app = FastAPI()

    @app.get("/v1/models")
    async def models() -> Any:
        return {"data": [{"id": "x"}]}

    async with http_serving(app, host="127.0.0.1", port=0) as url:
        nobody._port = int(url.rpartition(":")[2])
        with pytest.raises(ModelError, match="is not what vLLM answers"):
            async with engine_for(nobody, tmp_path):
                pass


async def test_another_base_of_the_same_name_is_told_by_its_tokens(
    tiny_base: BaseModel, tmp_path: Path
) -> None:
    """A chat becomes other tokens there."""
    other = make_tiny_model(tmp_path / "other")
    (other / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    odd = replace(tiny_base, path=other)
    async with VllmDouble(odd, root=f"/mnt/{tiny_base.path.name}") as vllm:
        with pytest.raises(ModelError, match="reads a chat otherwise"):
            async with engine_for(vllm, tmp_path, base=tiny_base):
                pass


# -- adapters


async def test_a_version_is_copied_loaded_and_taken_away(
    vllm: VllmDouble, adapters: dict[str, Path], tmp_path: Path
) -> None:
    """Its name and place there hold a part of its hash; once out, no copy stays."""
    shared = tmp_path / "shared"
    async with engine_for(vllm, tmp_path, vllm_adapters=str(shared)) as engine:
        await engine.load(ONE, adapters[ONE])
        await engine.load(ONE, adapters[ONE])
        name = called(ONE, adapters[ONE])
        scope, _, rest = ONE.partition("@")
        place = shared / scope / f"{rest}-{name[-16:]}"
        assert vllm.names() == {name} and vllm.loras.by_name[name].path == str(place)
        assert read_manifest(place) == read_manifest(adapters[ONE])
        assert engine.stats().adapters == (ONE,)
        await engine.warm(ONE)
        await engine.unload(ONE)
        assert vllm.names() == set() and not place.exists() and engine.stats().adapters == ()
        with pytest.raises(UnknownAdapter):
            engine.generate(replace(ASK, adapter=ONE))
        assert not list(shared.glob(".probe*"))


async def test_the_same_directory_may_have_two_names(
    vllm: VllmDouble, adapters: dict[str, Path], tmp_path: Path
) -> None:
    """What is `here` for us is `there` for vLLM."""
    (tmp_path / "mount").symlink_to(tmp_path / "shared")
    (tmp_path / "shared").mkdir()
    seen = {"vllm_adapters": str(tmp_path / "shared"), "vllm_adapters_there": f"{tmp_path}/mount"}
    async with engine_for(vllm, tmp_path, **seen) as engine:
        await engine.load(ONE, adapters[ONE])
        assert vllm.loras.by_name[called(ONE, adapters[ONE])].path.startswith(f"{tmp_path}/mount/")
    seen["vllm_adapters_there"] = "/nowhere"
    with pytest.raises(ModelError, match=r"sees no /nowhere.*serving.vllm_adapters_there"):
        async with engine_for(vllm, tmp_path, **seen):
            pass


async def test_adapters_that_are_not_sound_are_refused(
    vllm: VllmDouble, adapters: dict[str, Path], tiny_base: BaseModel, tmp_path: Path
) -> None:
    """By our own look at the bytes, by the server's at the rank; nothing of them stays."""
    shared = tmp_path / "shared"
    bad = shutil.copytree(adapters[ONE], tmp_path / "bad")
    (bad / WEIGHTS).write_bytes(b"cut short")
    foreign = publish_tiny_adapter(tmp_path / "foreign", tiny_base.path, "shop@v1", 1)
    async with engine_for(vllm, tmp_path, vllm_adapters=str(shared)) as engine:
        vllm.options.max_lora_rank = 2
        for name, directory, said in (
            (ONE, bad, "corrupt or altered"),
            ("shop@v1", foreign, "train again on this base"),
            (TWO, adapters[ONE], "the manifest says"),
            (ONE, adapters[ONE], "LoRA rank 4 is greater than max_lora_rank 2.*--max-lora-rank"),
        ):
            with pytest.raises(AdapterRefused, match=said):
                await engine.load(name, directory)
        assert vllm.names() == set() and engine.stats().adapters == ()


async def test_a_name_of_ours_in_another_place_is_not_ours(
    vllm: VllmDouble, adapters: dict[str, Path], tmp_path: Path
) -> None:
    """Whoever loaded it: its bytes are unknown, so it is not used; our own earlier load is."""
    name = called(ONE, adapters[ONE])
    await vllm.loras.load(name, str(adapters[TWO]))
    async with engine_for(vllm, tmp_path) as engine:
        with pytest.raises(EngineStopped, match="should be loaded from"):
            await engine.load(ONE, adapters[ONE])
        del vllm.loras.by_name[name]
        await vllm.loras.load(name, str(adapters[ONE]))
        await engine.load(ONE, adapters[ONE])


async def test_places_are_bounded_and_the_oldest_makes_room(
    vllm: VllmDouble, adapters: dict[str, Path], tmp_path: Path
) -> None:
    """One that writes stays; where all do, the newcomer waits outside."""
    async with engine_for(vllm, tmp_path, max_adapters=2) as engine:
        await engine.load(ONE, adapters[ONE])
        await engine.load(TWO, adapters[TWO])
        vllm.faults.going.clear()
        first = engine.generate(replace(ASK, adapter=ONE))
        vllm.faults.going.set()
        await first.result()
        await engine.load(THREE, adapters[THREE])
        assert engine.stats().adapters == tuple(sorted((ONE, THREE)))
        assert vllm.names() == {called(ONE, adapters[ONE]), called(THREE, adapters[THREE])}
        vllm.faults.going.clear()
        held = [engine.generate(replace(ASK, adapter=name)) for name in (ONE, THREE)]
        with pytest.raises(AdaptersFull, match=r"serving.max_adapters"):
            await engine.load(TWO, adapters[TWO])
        assert called(TWO, adapters[TWO]) not in vllm.names()
        vllm.faults.going.set()
        for one in held:
            await one.result()


async def test_unloading_waits_for_the_last_reply(
    vllm: VllmDouble, adapters: dict[str, Path], tmp_path: Path
) -> None:
    """New ones are refused at once; what is being written ends as it began."""
    async with engine_for(vllm, tmp_path) as engine:
        await engine.load(ONE, adapters[ONE])
        vllm.faults.going.clear()
        writing = engine.generate(replace(ASK, adapter=ONE))
        while not vllm.writer.running:
            await asyncio.sleep(0.01)
        leaving = asyncio.create_task(engine.unload(ONE))
        await asyncio.sleep(0)
        with pytest.raises(UnknownAdapter):
            engine.generate(replace(ASK, adapter=ONE))
        assert vllm.names()
        vllm.faults.going.set()
        assert (await writing.result()).finish_reason in ("stop", "length")
        await leaving
        assert not vllm.names()


async def test_a_new_start_takes_out_what_the_last_one_left(
    vllm: VllmDouble, adapters: dict[str, Path], tmp_path: Path
) -> None:
    """Names and copies of its own shelf, unless another process of the bot has them in use."""
    shared = {"vllm_adapters": str(tmp_path / "shared")}
    await vllm.loras.load("somebody-elses", str(adapters[TWO]))
    async with engine_for(vllm, tmp_path, **shared) as first:
        await first.load(ONE, adapters[ONE])
        async with engine_for(vllm, tmp_path, **shared):
            assert len(vllm.names()) == 2
    assert len(vllm.names()) == 2  # a restart of the bot would find it loaded
    async with engine_for(vllm, tmp_path, **shared):
        assert vllm.names() == {"somebody-elses"}
        assert not list((tmp_path / "shared").glob("*/v*"))


# -- a server that restarts


async def test_a_restart_is_noticed_and_versions_are_loaded_again(
    vllm: VllmDouble, adapters: dict[str, Path], tmp_path: Path
) -> None:
    """Twenty replies at once after it: all answered, by the version they asked for."""
    async with engine_for(vllm, tmp_path, vllm_adapters=str(tmp_path / "shared")) as engine:
        for name in (ONE, TWO):
            await engine.load(name, adapters[name])
        asked = [replace(ASK, adapter=name) for name in (ONE, TWO, BASE)]
        before = [(await engine.generate(one).result()).text for one in asked]
        shutil.rmtree(tmp_path / "shared")
        (tmp_path / "shared").mkdir()
        await vllm.restart()
        many = [engine.generate(one) for one in asked * 7]
        after = [(await one.result()).text for one in many]
        assert after == before * 7 and len(set(before)) == 3
        assert vllm.names() == {called(name, adapters[name]) for name in (ONE, TWO)}


async def test_a_restart_under_running_replies(
    vllm: VllmDouble,
    adapters: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that had begun ends with a word, one that had not is asked for again."""
    monkeypatch.setattr(elsewhere, "PAUSES_S", (0.1,) * 200)
    async with engine_for(vllm, tmp_path) as engine:
        await engine.load(ONE, adapters[ONE])
        whole = (await engine.generate(replace(ASK, adapter=ONE)).result()).text
        begun = engine.generate(replace(LONG, adapter=ONE))
        await anext(aiter(begun))
        vllm.faults.going.clear()
        waiting = engine.generate(replace(ASK, adapter=ONE))
        while len(vllm.writer.running) < 2:
            await asyncio.sleep(0.01)
        dying = asyncio.create_task(vllm.restart())
        with pytest.raises(EngineStopped, match="is lost"):
            await begun.result()
        vllm.faults.going.set()
        await dying
        assert (await waiting.result()).text == whole


async def test_the_base_never_answers_for_a_version(
    vllm: VllmDouble, adapters: dict[str, Path], tmp_path: Path
) -> None:
    """A server that answers any name with its base is found out by its first word."""
    async with engine_for(vllm, tmp_path) as engine:
        await engine.load(ONE, adapters[ONE])
        whole = (await engine.generate(replace(ASK, adapter=ONE)).result()).text
        vllm.options.skip_name_validation = True
        vllm.loras.by_name.clear()
        assert (await engine.generate(replace(ASK, adapter=ONE)).result()).text == whole
        vllm.loras.by_name.clear()
        vllm.options.max_lora_rank = 2
        engine._lora_rank = 2
        with pytest.raises(UnknownAdapter, match=f"'tiny-base' answers where .*{SKIP}"):
            await engine.generate(replace(ASK, adapter=ONE)).result()


async def test_another_base_after_a_restart_is_never_shown(
    vllm: VllmDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list of models tells, once it is looked at again; what fits again is answered again."""
    monkeypatch.setattr(vllm_module, "FRESH_S", 0.0)
    async with engine_for(vllm, tmp_path) as engine:
        await engine.generate(ASK).result()
        vllm.options.root, ours = "other/model", vllm.options.root
        await vllm.restart()
        with pytest.raises(ModelError, match="its base is 'other/model'"):
            await engine.generate(ASK).result()
        vllm.options.root = ours
        await vllm.restart()
        assert (await engine.generate(ASK).result()).text


async def test_other_weights_of_the_same_name_are_looked_at_when_a_reply_tells(
    vllm: VllmDouble, tmp_path: Path
) -> None:
    """Another fingerprint, or other tokens than were counted, cause a whole look, once."""
    async with engine_for(vllm, tmp_path) as engine:
        await engine.generate(ASK).result()
        looks = len(vllm.writer.seen)
        vllm.options.fingerprint = "vllm-0.33.0-ffffffff"
        for _ in range(3):
            await engine.generate(ASK).result()
        assert len(vllm.writer.seen) == looks + 4
        vllm.writer.tokenizer.chat_template = "{{ messages[-1]['content'] }}"  # type: ignore[attr-defined]
        await engine.generate(ASK).result()
        with pytest.raises(ModelError, match="reads a chat otherwise"):
            await engine.generate(ASK).result()


async def test_while_nobody_is_there_everybody_hears_it_at_the_same_time(
    vllm: VllmDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one after the other; and a close in the middle of a look leaves nothing behind."""
    monkeypatch.setattr(vllm_module, "FRESH_S", 0.0)
    async with engine_for(vllm, tmp_path) as engine:
        await vllm.die()
        monkeypatch.setattr(elsewhere, "PAUSES_S", (0.5,))
        asked = [engine.generate(ASK) for _ in range(20)]
        async with asyncio.timeout(8):
            for one in asked:
                with pytest.raises(EngineStopped, match="is lost"):
                    await one.result()
        last = engine.generate(ASK)
        await asyncio.sleep(0.05)
    assert (await last.result()).finish_reason == "cancelled"


async def test_a_dead_engine_is_told(
    vllm: VllmDouble, adapters: dict[str, Path], tmp_path: Path
) -> None:
    """A reply and a load each say so; the adapter is not blamed."""
    async with engine_for(vllm, tmp_path) as engine:
        vllm.faults.dead = True
        with pytest.raises(EngineStopped, match="status 500"):
            await engine.generate(ASK).result()
        with pytest.raises(EngineStopped, match=r"engine has died.*restart it"):
            await engine.load(ONE, adapters[ONE])


# -- a promotion under load


async def test_promotions_under_load_drop_nobody_and_mix_nothing(
    vllm: VllmDouble, adapters: dict[str, Path], tmp_path: Path
) -> None:
    """Twenty chats stream while five versions come and go, each reply by the one it began with."""
    ask = replace(ASK, sampling=Sampling(0.0, max_tokens=40))
    async with engine_for(vllm, tmp_path, max_adapters=2, max_batch=30) as engine:
        await engine.load(ONE, adapters[ONE])
        live, stop = ONE, asyncio.Event()
        done: list[tuple[str, str]] = []

        async def chat() -> None:
            while not stop.is_set():
                adapter = live
                result = await engine.generate(replace(ask, adapter=adapter)).result()
                done.append((adapter, result.text))

        chats = [asyncio.create_task(chat()) for _ in range(20)]
        for new in (TWO, THREE, ONE, TWO, THREE):
            enough = len(done) + 20
            await engine.load(new, adapters[new])
            old, live = live, new
            await engine.unload(old)
            while len(done) < enough:
                await asyncio.sleep(0.01)
        stop.set()
        await asyncio.gather(*chats)
        said = {name: {text for who, text in done if who == name} for name in NAMES}
        assert [len(texts) for texts in said.values()] == [1, 1, 1]
        assert all(a != b for a, b in itertools.combinations(said.values(), 2))
        assert len(done) >= 120 and vllm.names() == {called(THREE, adapters[THREE])}


async def test_this_side_needs_no_torch(vllm: VllmDouble, tmp_path: Path) -> None:
    """A whole chat in another process, and the library was never loaded there."""
    script = _CHAT.format(data=str(tmp_path / "near"), model=str(vllm.base.path), url=vllm.url)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, errors = await asyncio.wait_for(child.communicate(), 120)
    assert out.decode().split() == ["done", "False"], errors.decode()


_CHAT = """
import asyncio, sys
from pathlib import Path
from bot.world import open_world
from core.settings import Settings
async def main():
    settings = Settings.model_validate({{
        "data_dir": Path({data!r}), "model": {{"source": {model!r}}},
        "serving": {{"backend": "vllm", "remote_url": {url!r}, "max_context_tokens": 512}},
    }})
    async with open_world(settings, lambda _: None) as world:
        ada = await world.database.run(lambda db: db.people.ensure("console", "ada"))
        talk = await world.chat.open("console", ada)
        reply = await (await world.chat.say(talk, ada.id, "Hello")).finished()
        print(reply.state, "torch" in sys.modules)
asyncio.run(main())
"""
