"""The pages beside the chat: training, adapters, arena, feedback, people, overview."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from bot.console.drawing import curve, shares
from bot.console.words import age, percent, seconds, sentence
from bot.overview import look
from bot.plain import stage
from bot.world import World
from core.generation import BASE
from tests.bot.console.conftest import Browser
from tests.bot.test_learning import SCOPE, add_votes

PAGES = ("/training", "/adapters", "/arena", "/feedback", "/feedback/review", "/people")


@pytest.fixture
async def trained(world: World, browser: Browser) -> AsyncIterator[Browser]:
    """A browser whose console has made one version from imported votes."""
    await world.database.run(add_votes)
    answer = await browser.post("/training/runs", recipe="auto")
    run_id = answer.headers["hx-redirect"].rpartition("/")[2]
    await browser.client.get(f"/training/runs/{run_id}/events")
    yield browser


@pytest.mark.parametrize("path", [*PAGES, "/overview"])
async def test_every_page_of_an_empty_world_says_what_to_do(browser: Browser, path: str) -> None:
    """Nothing is there yet, and no page breaks or stays blank."""
    answer = await browser.get(path)
    assert answer.status_code == 200
    assert "<h1>" in answer.text


async def test_too_little_to_learn_from_is_told_in_plain_words(browser: Browser) -> None:
    """The dry run and the run itself say what is missing, and nothing is trained."""
    assert "Nothing would be trained" in (await browser.get("/training/plan")).text
    answer = await browser.post("/training/runs", recipe="auto")
    run = answer.headers["hx-redirect"]
    await browser.client.get(f"{run}/events")
    page = (await browser.get(run)).text
    assert "refused" in page and "usable examples" in page


async def test_a_dry_run_counts_both_sides(browser: Browser, world: World) -> None:
    """What would be learnt from and kept aside, without a run."""
    await world.database.run(add_votes)
    page = (await browser.get("/training/plan?recipe=kto")).text
    assert "Learnt from" in page and "Kept aside for the gate" in page
    assert await world.database.run(lambda db: db.runs.list()) == []
    assert (await browser.get("/training/plan?recipe=magic")).status_code == 422


async def test_a_run_is_followed_to_its_report_and_speaks(trained: Browser, world: World) -> None:
    """The report has the gate's table, what it learnt from row by row, and replies before and
    after.
    """
    (run,) = await world.database.run(lambda db: db.runs.list(SCOPE))
    page = (await trained.get(f"/training/runs/{run.id}")).text
    for part in ("The gate: figures against bounds", "What it learnt from", "before and after"):
        assert part in page
    assert run.state == "promoted" and "console@v1" in page
    assert f'href="/feedback?run={run.id}"' in page
    rows = (await trained.get(f"/feedback?run={run.id}")).text
    assert "this run</a> learnt from" in rows and "/row/drop" in rows
    assert "Nothing fits." in (await trained.get("/feedback?run=run_of_nobody")).text
    assert '<span class="badge" id="speaking">console@v1</span>' in page
    _, reply_id = await trained.ask()
    assert (await world.database.run(lambda db: db.replies.get(reply_id))).adapter == "console@v1"


async def test_a_second_run_is_refused_while_one_goes_on(browser: Browser, world: World) -> None:
    """It says which one goes on; that one can be cancelled."""
    await world.database.run(lambda db: add_votes(db, count=60))
    run = (await browser.post("/training/runs")).headers["hx-redirect"]
    again = await browser.post("/training/runs")
    assert (again.status_code, "wait for it" in again.text) == (409, True)
    assert (await browser.post(f"{run}/cancel")).status_code == 204
    events = (await browser.client.get(f"{run}/events")).text
    assert "event: end" in events and "cancelled" in events


async def test_versions_are_promoted_and_rolled_back(trained: Browser, world: World) -> None:
    """The base speaks again, then the version; each names who moved it."""
    assert "console@v1" in (await trained.get("/adapters")).text
    await trained.post("/adapters/rollback")
    assert await world.registry.speaking(SCOPE) == BASE
    await trained.post("/adapters/promote", name="v1")
    assert await world.registry.speaking(SCOPE) == "console@v1"
    assert "by console:operator" in (await trained.get("/adapters")).text
    assert (await trained.post("/adapters/promote", name="v9")).status_code == 404


async def test_a_version_can_be_tried_on_some_conversations(trained: Browser, world: World) -> None:
    """It goes on trial with the share that was asked for, and rolling back ends that."""
    await trained.post("/adapters/rollback")
    assert (await trained.post("/adapters/trial", name="v1", percent="95")).status_code == 422
    await trained.post("/adapters/trial", name="v1", percent="40")
    trial = await world.canary.standing(SCOPE)
    assert trial and trial.trial.share == 0.4
    assert "On trial: console@v1" in (await trained.get("/adapters")).text
    await trained.post("/adapters/rollback")
    assert await world.canary.standing(SCOPE) is None


async def test_a_version_is_exported_as_a_peft_directory(trained: Browser) -> None:
    """The zip holds the weights and their configuration; the base and other names do not exist."""
    answer = await trained.get("/adapters/console@v1/export.zip")
    names = zipfile.ZipFile(io.BytesIO(answer.content)).namelist()
    assert "console-v1/adapter_model.safetensors" in names
    assert "console-v1/adapter_config.json" in names
    for name in ("base", "..%2f..", "console@v9"):
        assert (await trained.get(f"/adapters/{name}/export.zip")).status_code == 404


async def test_the_arena_is_blind_and_keeps_choices(trained: Browser, world: World) -> None:
    """The match names no version; the choice is tallied with its interval."""
    sides = {"candidate": "console@v1", "reference": "base"}
    match = await trained.post("/arena/matches", text="Which one?", **sides)
    assert "console@v1" not in match.text and ">base<" not in match.text
    match_id = re.findall(r"/arena/matches/(m_\w+)/choice", match.text)[0]
    chosen = await trained.post(f"/arena/matches/{match_id}/choice", choice="first")
    assert "A is better" in chosen.text and "console@v1" in chosen.text
    stats = await world.database.run(lambda db: db.feedback.stats(SCOPE))
    assert stats["preference"] == 1
    same = {"candidate": "base", "reference": "base"}
    assert (await trained.post("/arena/matches", text="Hm?", **same)).status_code == 409
    assert (await trained.post("/arena/matches", text=" ", **sides)).status_code == 422


async def test_feedback_is_found_filtered_and_left_out(browser: Browser, world: World) -> None:
    """By words, by kind; signs of a pattern are looked for as they are."""
    await world.database.run(add_votes)
    page = (await browser.get("/feedback?q=number 7?")).text
    assert "Question number 7?" in page and "Question number 8?" not in page
    assert "Nothing fits." in (await browser.get("/feedback?q=%25%25")).text
    liked = (await browser.get("/feedback?kind=up")).text
    assert "Yes 0." in liked and "long story" not in liked
    row = re.findall(r"/feedback/(f_\w+)/row/drop", liked)[0]
    await browser.post(f"/feedback/{row}/row/drop")
    assert (await world.database.run(lambda db: db.feedback.get(row))).dropped


async def test_corrections_are_reviewed_before_they_train(browser: Browser, world: World) -> None:
    """Edited words are what trains, and the queue becomes empty."""
    _, reply_id = await browser.ask()
    await browser.post(f"/replies/{reply_id}/correction", text="Say <b>this</b>.")
    page = (await browser.get("/feedback/review")).text
    assert "&lt;b&gt;this" in page
    row = re.findall(r"/feedback/(f_\w+)/accept", page)[0]
    answer = await browser.post(f"/feedback/{row}/edit", text="Say that.")
    assert "Nothing waits for a look" in answer.text
    assert (await world.database.run(lambda db: db.feedback.get(row))).text == "Say that."


async def test_a_corrections_words_are_changed_in_the_list(browser: Browser, world: World) -> None:
    """What is empty is refused; the new words are what trains, and are shown as words."""
    _, reply_id = await browser.ask()
    await browser.post(f"/replies/{reply_id}/correction", text="Say this.")
    row = re.findall(r"/feedback/(f_\w+)/row/edit", (await browser.get("/feedback")).text)[0]
    assert (await browser.post(f"/feedback/{row}/row/edit", text=" ")).status_code == 422
    answer = await browser.post(f"/feedback/{row}/row/edit", text="<i>That</i>")
    assert "&lt;i&gt;That" in answer.text
    assert (await world.database.run(lambda db: db.feedback.get(row))).text == "<i>That</i>"


@pytest.mark.parametrize("form", ["raw", "kto", "dpo", "sft"])
async def test_feedback_is_exported_as_the_command_line_does(
    browser: Browser, world: World, form: str
) -> None:
    """Each line is an object; other names do not exist."""
    await world.database.run(add_votes)
    answer = await browser.get(f"/feedback/export/{form}")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert len(lines) == {"raw": 24, "kto": 24, "dpo": 0, "sft": 8}[form]
    assert (await browser.get("/feedback/export/secrets")).status_code == 422


async def test_a_person_is_exported_and_forgotten(browser: Browser, world: World) -> None:
    """The file holds their words; afterwards nothing does, and the console goes on."""
    conversation, _ = await browser.ask("My secret garden")
    (person,) = await world.database.run(lambda db: db.people.find("operator"))
    held = await browser.get(f"/people/{person.id}/export")
    assert "My secret garden" in held.text
    done = await browser.post(f"/people/{person.id}/forget")
    assert "Forgotten" in done.text
    assert (await browser.get(f"/chat/{conversation}")).status_code == 404
    await browser.ask("Hello again")


async def test_the_overview_counts_what_there_is(trained: Browser, world: World) -> None:
    """Votes of each day, likes with intervals, speed, and bytes."""
    await trained.ask()
    page = (await trained.get("/overview")).text
    assert "tokens a second" in page and "Share liked" in page
    found = await look(world, SCOPE, now=datetime(2026, 1, 2, tzinfo=UTC))
    assert sum(day.up + day.down for day in found.days) == 24
    assert len(found.days) == 30
    assert found.speed.replies >= 1
    assert dict(found.disk.parts)["adapters"] > 0


def test_figures_are_told_as_people_say_them() -> None:
    """Units that suit, states in words, sentences without glyphs."""
    now = datetime(2026, 1, 2, 12, tzinfo=UTC)
    assert [age(at, now) for at in ("2026-01-02T11:59:30Z", "2026-01-02T11:30:00Z")] == [
        "just now",
        "30 min ago",
    ]
    assert (age("2026-01-01T10:00:00Z", now), age("2025-01-01T10:00:00Z", now)) == (
        "1 d ago",
        "2025-01-01",
    )
    assert [seconds(x) for x in (None, 0.25, 4.26, 90, 600, 9000)] == [
        "unknown",
        "250 ms",
        "4.3 s",
        "90 s",
        "10 min",
        "2.5 h",
    ]
    assert sentence("only 3 👍 here") == "Only 3 liked here."
    assert (percent(0.333), stage("1-kto-kto")) == ("33 %", "Learning from votes")


def test_curves_fill_their_box() -> None:
    """The first point is at the left, the last at the right; two points at least."""
    drawn = curve("Loss", [(0.1, 2.0), (0.5, -1.0), (0.9, 1.0)])
    assert drawn and drawn.points.startswith("44.0,10.0") and drawn.zero is not None
    assert drawn.points.split()[-1].startswith("312.0,")
    assert curve("Loss", [(0.1, 2.0)]) is None
    assert shares(1, 3) == [(0.0, 25.0), (25.0, 75.0)]
    assert shares(0, 0) == [(0.0, 0.0), (0.0, 0.0)]
