"""Versions at vLLM: a name means one content, and nothing of a version stays behind."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from core.basemodel import BaseModel
from core.errors import (
    AdapterRefused,
    AdaptersFull,
    EngineStopped,
    ModelError,
    UnknownAdapter,
)
from core.manifest import WEIGHTS, read_manifest
from tests.serving.vllm_side import (
    ASK,
    ONE,
    THREE,
    TWO,
    called,
    engine_for,
)
from tests.tiny import publish_tiny_adapter
from tests.vllm_double import VllmDouble

pytestmark = pytest.mark.usefixtures("hasty")


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


async def test_an_adapter_that_is_loaded_and_not_heard_is_refused(
    vllm: VllmDouble, adapters: dict[str, Path], tmp_path: Path
) -> None:
    """A server that lists it and writes as without it would pass the base off as the version."""
    async with engine_for(vllm, tmp_path, vllm_adapters=str(tmp_path / "shared")) as engine:
        vllm.faults.deaf = True
        with pytest.raises(AdapterRefused, match="exactly as without it"):
            await engine.load(ONE, adapters[ONE])
        assert vllm.names() == set() and not list((tmp_path / "shared").glob("*/v*"))


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


async def test_only_what_is_ours_is_swept_and_a_spoilt_copy_is_never_loaded(
    vllm: VllmDouble, adapters: dict[str, Path], tmp_path: Path
) -> None:
    """Other files on the shelf stay; a copy that somebody changed is neither used nor repaired."""
    shared = tmp_path / "shared"
    scope, _, number = ONE.partition("@")
    copy = shared / scope / f"{number}-{called(ONE, adapters[ONE])[-16:]}"
    (shared / scope / "v1-notes").mkdir(parents=True)
    (shared / scope / ".v9.999999999.tmp").mkdir()
    async with engine_for(vllm, tmp_path, vllm_adapters=str(shared)) as engine:
        assert sorted(path.name for path in (shared / scope).iterdir()) == ["v1-notes"]
        shutil.copytree(adapters[ONE], copy)
        (copy / WEIGHTS).write_bytes(b"other bytes")
        with pytest.raises(EngineStopped, match=r"was changed .*corrupt or altered.* remove "):
            await engine.load(ONE, adapters[ONE])
        assert vllm.names() == set()


async def test_a_shelf_that_cannot_be_written_is_no_fault_of_the_adapters(
    vllm: VllmDouble, adapters: dict[str, Path], tmp_path: Path
) -> None:
    """At the start and later; each says which directory."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=r"cannot be written.*serving.vllm_adapters"):
        async with engine_for(vllm, tmp_path, vllm_adapters=str(tmp_path / "file")):
            pass
    async with engine_for(vllm, tmp_path, vllm_adapters=str(tmp_path / "shared")) as engine:
        (tmp_path / "shared" / ONE.partition("@")[0]).write_text("in the way")
        with pytest.raises(EngineStopped, match="cannot be copied"):
            await engine.load(ONE, adapters[ONE])


async def test_weights_that_left_vllms_memory_are_read_again_from_their_place(
    vllm: VllmDouble, adapters: dict[str, Path], tmp_path: Path
) -> None:
    """So a copy stays as long as its name does; without it vLLM would die of the next reply."""
    vllm.options.max_cpu_loras = 2
    await vllm.restart()
    async with engine_for(vllm, tmp_path, vllm_adapters=str(tmp_path / "shared")) as engine:
        for name in (ONE, TWO, THREE):
            await engine.load(name, adapters[name])
        texts = {
            (await engine.generate(replace(ASK, adapter=name)).result()).text
            for name in (ONE, TWO, THREE) * 2
        }
        assert len(texts) == 3
        shutil.rmtree(tmp_path / "shared")
        with pytest.raises(EngineStopped, match="status 500"):
            for name in (ONE, TWO, THREE):
                await engine.generate(replace(ASK, adapter=name)).result()
