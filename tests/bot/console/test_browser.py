"""The story in a real browser: chat, vote, correct, train, compare, roll back, forget."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise

import pytest
from fastapi import FastAPI

from bot.console.serve import console_face
from bot.web.server import serving
from bot.world import World
from tests.bot.console.browsing import PHONE, Sight, chromium, require_axe
from tests.bot.test_learning import SCOPE, add_votes

PAGES = ("/chat", "/chat/new", "/training", "/adapters", "/arena", "/feedback", "/overview")


@pytest.fixture
async def address(console: FastAPI) -> AsyncIterator[str]:
    """Where the console is served."""
    async with serving(console, host="127.0.0.1", port=0) as served:
        yield served


async def ask(sight: Sight, text: str) -> None:
    """Type a message, send it, and wait for the whole reply."""
    replies = await sight.page.locator("article.bot").count()
    await sight.page.fill("#message", text)
    await sight.page.keyboard.press("Enter")
    await sight.page.wait_for_selector(f"article.bot >> nth={replies}")
    await sight.page.wait_for_load_state()  # a new conversation has a page of its own
    await sight.settled()
    await sight.page.locator("#message").blur()


WORDS = """[...document.querySelectorAll(".page span")].map(word => {
    const range = document.createRange(); range.selectNodeContents(word);
    const box = range.getBoundingClientRect(); return {left: box.left, right: box.right}; })"""
ENDS = """[...document.querySelectorAll(".days-ends span")].map(
    day => day.getBoundingClientRect().height)"""
"""Where the words of the navigation are drawn, and how high those under the bars are, in pixels."""


async def test_the_whole_story(address: str, world: World) -> None:
    """From an empty page to a new version, back again, and everything forgotten."""
    await world.database.run(add_votes)
    async with chromium() as sight:
        page = sight.page
        await page.goto(address)
        await ask(sight, "Hello")
        await page.keyboard.press("2")
        await page.click(".reasons >> text=too long")
        await page.wait_for_selector(".reasons [aria-pressed=true]")
        await page.keyboard.press("e")
        await page.fill(".edit textarea", "A better answer.")
        await page.click(".edit >> text=Keep")
        await page.wait_for_selector(".corrected")
        await page.keyboard.press("r")
        await page.wait_for_selector(".versions >> text=2/2")
        await page.keyboard.press("1")
        await page.wait_for_selector(".act.up[aria-pressed=true]")
        await page.click("text=The version before")
        await page.wait_for_selector(".versions >> text=1/2")

        await page.goto(f"{address}/training")
        await page.click("button:has-text('Train now')")
        await page.wait_for_selector("text=The gate: figures against bounds")
        await page.wait_for_selector("#speaking:has-text('console@v1')")
        await page.goto(f"{address}/chat/new")
        await ask(sight, "Who are you now?")
        assert await page.inner_text("article.bot .badge") == "console@v1"

        await page.goto(f"{address}/arena")
        await page.fill("#question", "Which one?")
        await page.click("text=Ask both >> nth=-1")
        await page.click("text=A is better")
        await page.wait_for_selector("#tallies >> text=console@v1")

        await page.goto(f"{address}/adapters")
        await page.click("text=Roll back")
        await page.wait_for_selector("#speaking:text-is('base')")
        async with page.expect_download() as download:
            await page.click("text=Export")
        assert (await download.value).suggested_filename == "console-v1.zip"

        (me,) = await world.database.run(lambda db: db.people.find("operator"))
        await page.goto(f"{address}/people/{me.id}")
        await page.click("text=Forget this person")
        await page.wait_for_selector("text=To be replaced by the next run")
        await page.goto(f"{address}/chat")
        await page.wait_for_selector("text=Say something, then judge the answer")
        assert sight.complaints == []
    assert await world.registry.speaking(SCOPE) == "base"


async def test_a_server_that_goes_and_comes_back_is_found_again(world: World) -> None:
    """The page says so, keeps what was typed, and goes on by itself."""
    async with chromium() as sight:
        async with console_face(_on(world, 0)) as address:
            port = int(address.rpartition(":")[2])
            await sight.page.goto(f"{address}/chat/new")
            await sight.page.fill("#message", "Do not lose me")
        await sight.page.keyboard.press("Enter")
        await sight.page.wait_for_selector("#offline:visible")
        async with console_face(_on(world, port)):
            await sight.page.wait_for_selector("#offline", state="hidden")
            kept = "document.querySelector('#message').value === 'Do not lose me'"
            await sight.page.wait_for_function(kept)
            await ask(sight, "Do not lose me")


async def test_what_people_write_runs_nothing(address: str) -> None:
    """Scripts, handlers and links to scripts in a message stay words."""
    attack = "<script>window.hit=1</script><img src=x onerror='window.hit=1'> [x](javascript:hit=1)"
    async with chromium() as sight:
        await sight.page.goto(address)
        await ask(sight, attack)
        await sight.page.reload()
        assert await sight.page.evaluate("window.hit") is None
        assert "<script>" in await sight.page.inner_text("article.you")
        assert await sight.page.locator("article.you a").count() == 0


async def test_messages_are_refused_before_they_are_sent(address: str) -> None:
    """Nothing and too much: a note says what to do, and the text stays."""
    async with chromium() as sight:
        await sight.page.goto(address)
        await sight.page.click("text=Send")
        await sight.page.wait_for_selector(".toast >> text=Write something first.")
        await sight.page.fill("#message", "x" * 3000)
        await sight.page.keyboard.press("Enter")
        await sight.page.wait_for_selector(".toast >> text=3000 characters")
        assert len(await sight.page.input_value("#message")) == 3000


@pytest.mark.usefixtures("slowly")
async def test_a_reload_goes_on_with_what_was_said(address: str, world: World) -> None:
    """The text that is there stands at once, the rest follows, and Esc stops it."""
    async with chromium() as sight:
        await sight.page.goto(address)
        await sight.page.fill("#message", "Go on")
        await sight.page.keyboard.press("Enter")
        await sight.page.wait_for_selector("[aria-busy=true] .said:has-text('…')")
        await sight.page.reload()
        await sight.page.wait_for_selector("[aria-busy=true] .said:has-text('…')")
        await sight.page.keyboard.press("Escape")
        await sight.settled()
        assert "stopped" in await sight.page.inner_text("article.bot")
    assert len(await world.database.run(lambda db: db.replies.recent(SCOPE, 9))) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_pages_are_readable_by_everybody(address: str, world: World, scheme: str) -> None:
    """axe finds nothing serious on any page, with data in it, in light and in dark."""
    require_axe()
    await world.database.run(add_votes)
    async with chromium(color_scheme=scheme) as sight:
        await sight.page.goto(address)
        await ask(sight, "Hello **you**, with `code`")
        await sight.page.keyboard.press("2")
        await sight.page.wait_for_selector(".reasons")
        found = {"talk": await sight.faults()}
        for dialog in ("drawer", "help"):
            await sight.page.click(f"[data-open={dialog}]")
            found[dialog] = await sight.faults()
            await sight.page.keyboard.press("Escape")
        run = await world.learning.retrain(SCOPE, actor="test")
        for path in (*PAGES, "/feedback/review", "/people", f"/training/runs/{run.run.id}"):
            await sight.page.goto(address + path)
            found[path] = await sight.faults()
    assert {path: faults for path, faults in found.items() if faults} == {}


async def test_a_phone_needs_no_sideways_scroll(address: str, world: World) -> None:
    """At 360 pixels every page fits, with long words too."""
    await world.database.run(add_votes)
    async with chromium(viewport=PHONE) as sight:
        await sight.page.goto(address)
        await ask(sight, "Donau" * 60)
        for path in (*PAGES, "/feedback/review", "/people"):
            await sight.page.goto(address + path)
            assert await sight.sideways() <= 0, path


async def test_a_phones_words_keep_apart_and_are_large_enough(address: str, world: World) -> None:
    """The words under the icons never touch, and none on the overview is smaller than they are."""
    async with chromium(viewport=PHONE) as sight:
        await sight.page.goto(f"{address}/overview")
        boxes = await sight.page.evaluate(WORDS)
        gaps = [after["left"] - before["right"] for before, after in pairwise(boxes)]
        assert len(boxes) == 6 and min(gaps) >= 4, gaps
        assert boxes[0]["left"] >= 2
        heights = await sight.page.evaluate(ENDS)
        assert len(heights) == 2 and min(heights) >= 10


async def test_colours_are_switched_and_remembered(address: str) -> None:
    """From the system's to light, to dark, over a reload."""
    async with chromium(color_scheme="light") as sight:
        await sight.page.goto(f"{address}/training")
        for theme in ("light", "dark"):
            await sight.page.click("[data-theme-switch]")
            assert await sight.page.get_attribute("html", "data-theme") == theme
        await sight.page.reload()
        ground = await sight.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert sum(int(part) for part in re.findall(r"\d+", ground)) < 150


def _on(world: World, port: int) -> World:
    """Return the world with its console on a port."""
    console = world.settings.console.model_copy(update={"port": port})
    return replace(world, settings=world.settings.model_copy(update={"console": console}))
