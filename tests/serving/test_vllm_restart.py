"""A vLLM server that restarts has forgotten all: no reply is lost to it, none is the base's."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import (
    EngineStopped,
    ModelError,
    UnknownAdapter,
)
from core.generation import BASE
from serving import elsewhere
from serving import vllm as vllm_module
from tests.serving.vllm_side import (
    ASK,
    LONG,
    ONE,
    TWO,
    called,
    engine_for,
)
from tests.vllm_double import VllmDouble

pytestmark = pytest.mark.usefixtures("hasty")


SKIP = "VLLM_SKIP_MODEL_NAME_VALIDATION"


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


async def test_a_version_that_cannot_be_loaded_again_holds_up_nobody_else(
    vllm: VllmDouble, adapters: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own replies say so; the others are answered, without a whole look for each."""
    monkeypatch.setattr(vllm_module, "FRESH_S", 0.0)
    gone = shutil.copytree(adapters[TWO], tmp_path / "gone")
    async with engine_for(vllm, tmp_path) as engine:
        await engine.load(ONE, adapters[ONE])
        await engine.load(TWO, gone)
        shutil.rmtree(gone)
        await vllm.restart()
        with pytest.raises(UnknownAdapter, match="does not exist"):
            await engine.generate(replace(ASK, adapter=TWO)).result()
        asked = len(vllm.writer.seen)
        for name in (ONE, BASE, ONE):
            assert (await engine.generate(replace(ASK, adapter=name)).result()).text
        assert len(vllm.writer.seen) == asked + 3


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
    vllm: VllmDouble,
    adapters: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
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
        loading = asyncio.create_task(engine.load(ONE, adapters[ONE]))
        await asyncio.sleep(0.05)
    assert (await last.result()).finish_reason == "cancelled"
    with pytest.raises(EngineStopped, match="is closed"):
        await loading


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
