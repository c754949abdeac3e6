"""vLLM writes the replies: what was asked for, or a plain word; and a promotion drops nobody."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.errors import (
    EngineBusy,
    EngineStopped,
    InvalidInput,
)
from core.generation import BASE, Message, Sampling
from tests.bot.test_cli import ROOT
from tests.serving.reference import NAMES
from tests.serving.vllm_side import (
    ASK,
    LONG,
    ONE,
    THREE,
    TWO,
    called,
    engine_for,
)
from tests.vllm_double import VllmDouble

pytestmark = pytest.mark.usefixtures("hasty")


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
