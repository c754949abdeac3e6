"""Talking in the console: what is said, followed, stopped, judged, written again."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from fastapi import FastAPI

from bot.adapters import promote
from bot.console.chat import routes
from bot.feedback import REASONS
from bot.world import World
from core.errors import EngineBusy
from core.records import Feedback
from tests.bot.console.conftest import Browser
from tests.bot.test_registry import publish


async def said_of(world: World, reply_id: str) -> list[Feedback]:
    """Return what is stored about a reply."""
    return await world.database.run(lambda db: db.feedback.of_reply(reply_id))


async def test_an_empty_console_says_what_to_do_first(browser: Browser) -> None:
    """The first page leads to the message box."""
    page = (await browser.get("/")).text
    assert "Say something, then judge the answer" in page
    assert 'name="text"' in page


async def test_a_message_is_answered_and_the_reply_followed_to_its_end(browser: Browser) -> None:
    """The stream ends with the whole reply and its buttons; the page shows the same."""
    answer = await browser.post("/chat/new/messages", text="Hello **you**")
    conversation = answer.headers["hx-redirect"].rpartition("/")[2]
    page = await browser.get(f"/chat/{conversation}")
    assert "<strong>you</strong>" in page.text
    reply_id = re.findall(r'data-reply="(r_\w+)"', page.text)[-1]
    events = await browser.follow(reply_id)
    assert events[-1][0] == "end"
    assert f"/replies/{reply_id}/vote" in events[-1][1]
    whole = (await browser.get(f"/chat/{conversation}")).text
    assert f"/replies/{reply_id}/vote" in whole and "sse-connect" not in whole


async def test_looking_again_never_writes_again(browser: Browser, world: World) -> None:
    """Two who follow, a reload and a late stream: one reply, and all see the same end."""
    answer = await browser.post("/chat/new/messages", text="Hello")
    conversation = answer.headers["hx-redirect"].rpartition("/")[2]
    page = await browser.get(f"/chat/{conversation}")
    reply_id = re.findall(r'data-reply="(r_\w+)"', page.text)[-1]
    one, other = await asyncio.gather(browser.follow(reply_id), browser.follow(reply_id))
    late = await browser.follow(reply_id)
    assert one[-1] == other[-1] == late[-1]
    replies = await world.database.run(lambda db: db.replies.of_conversation(conversation))
    assert [reply.id for reply in replies] == [reply_id]


async def test_votes_reasons_and_changed_minds_are_stored(browser: Browser, world: World) -> None:
    """👍 becomes 👎 with a reason, and pressing again takes it back."""
    _, reply_id = await browser.ask()
    assert (
        'aria-pressed="true"' in (await browser.post(f"/replies/{reply_id}/vote", kind="up")).text
    )
    page = (await browser.post(f"/replies/{reply_id}/vote", kind="down")).text
    assert all(reason in page for reason in REASONS)
    assert 'id="waiting"' in page and '<span class="figure">1</span>' in page
    await browser.post(f"/replies/{reply_id}/reasons", reason="too long")
    (vote,) = await said_of(world, reply_id)
    assert (vote.kind, vote.reasons) == ("down", ("too long",))
    await browser.post(f"/replies/{reply_id}/vote", kind="none")
    assert await said_of(world, reply_id) == []


async def test_a_correction_is_kept_and_shown(browser: Browser, world: World) -> None:
    """An empty one is refused in words."""
    _, reply_id = await browser.ask()
    refused = await browser.post(f"/replies/{reply_id}/correction", text="  ")
    assert (refused.status_code, "empty" in refused.text) == (422, True)
    page = (await browser.post(f"/replies/{reply_id}/correction", text="Say *this*.")).text
    assert "<em>this</em>" in page
    (row,) = await said_of(world, reply_id)
    assert (row.kind, row.text) == ("correction", "Say *this*.")


async def test_another_version_has_an_id_of_its_own(browser: Browser, world: World) -> None:
    """Versions are turned; votes on both become a preference."""
    conversation, first = await browser.ask()
    answer = await browser.post(f"/replies/{first}/again")
    second = re.findall(r'data-reply="(r_\w+)"', answer.text)[-1]
    await browser.follow(second)
    assert second != first
    assert "2/2" in (await browser.get(f"/chat/{conversation}")).text
    assert "1/2" in (await browser.get(f"/replies/{first}")).text
    await browser.post(f"/replies/{first}/vote", kind="down")
    await browser.post(f"/replies/{second}/vote", kind="up")
    kinds = {row.kind for row in await said_of(world, second)}
    assert kinds == {"up", "preference"}


@pytest.mark.usefixtures("slowly")
async def test_a_reply_can_be_stopped(browser: Browser, world: World) -> None:
    """What was written is kept and says that it was stopped; until then nothing else begins."""
    answer = await browser.post("/chat/new/messages", text="Go on and on")
    conversation = answer.headers["hx-redirect"].rpartition("/")[2]
    page = await browser.get(f"/chat/{conversation}")
    reply_id = re.findall(r'data-reply="(r_\w+)"', page.text)[-1]
    busy = await browser.post(f"/chat/{conversation}/messages", text="And?")
    assert (busy.status_code, "being written" in busy.text) == (409, True)
    assert (await browser.post(f"/replies/{reply_id}/stop")).status_code == 204
    assert "stopped" in (await browser.follow(reply_id))[-1][1]
    stored = await world.database.run(lambda db: db.replies.get(reply_id))
    assert stored.finish_reason == "cancelled"


@pytest.mark.parametrize(("text", "word"), [("", "empty"), ("  \n", "empty"), ("x" * 3000, "2000")])
async def test_messages_that_cannot_be_answered_are_refused_kindly(
    browser: Browser, world: World, text: str, word: str
) -> None:
    """Nothing is stored, and the sentence says what to do."""
    answer = await browser.post("/chat/new/messages", text=text)
    assert (answer.status_code, word in answer.text) == (422, True)
    person = await world.database.run(lambda db: db.people.find("operator"))
    talks = await world.database.run(
        lambda db: db.conversations.list("console", person[0].id, limit=9)
    )
    assert talks == []


async def test_emoji_alone_are_a_message(browser: Browser) -> None:
    """They are stored and answered like any other."""
    conversation, _ = await browser.ask("🎉👍🏽")
    assert "🎉👍🏽" in (await browser.get(f"/chat/{conversation}")).text


async def test_a_busy_engine_is_told_and_the_message_kept(
    browser: Browser, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page offers to answer later, and later it does."""
    conversation, _ = await browser.ask()

    def full(_: object) -> None:
        raise EngineBusy(4, 4)

    with monkeypatch.context() as patched:
        patched.setattr(world.engine, "generate", full)
        answer = await browser.post(f"/chat/{conversation}/messages", text="Now?")
        assert "engine is busy" in answer.text and "Answer now" in answer.text
    answer = await browser.post(f"/chat/{conversation}/answer")
    assert 'data-reply="r_' in answer.text


async def test_what_a_crash_cut_off_can_be_answered(browser: Browser, world: World) -> None:
    """After a restart the page says so instead of waiting for ever."""
    conversation, _ = await browser.ask()
    turns = await world.database.run(lambda db: db.conversations.history(conversation, limit=9))

    def cut_off(db: object) -> None:
        db.conversations.add_turn(
            conversation, role="user", text="And?", person_id=turns[0].person_id
        )  # type: ignore[attr-defined]
        reply = db.replies.recent("console", 1)[0]  # type: ignore[attr-defined]
        db.replies.start(  # type: ignore[attr-defined]
            conversation_id=conversation,
            scope="console",
            prompt=reply.prompt,
            adapter="base",
            sampling=reply.sampling,
        )
        db.replies.fail_pending("killed")  # type: ignore[attr-defined]

    await world.database.run(cut_off)
    page = (await browser.get(f"/chat/{conversation}")).text
    assert "cut off" in page and f"/chat/{conversation}/answer" in page


async def test_conversations_are_listed_switched_and_deleted(browser: Browser) -> None:
    """The newest comes first; a deleted one is gone with its replies."""
    one, reply_id = await browser.ask("First talk")
    other, _ = await browser.ask("Second talk")
    page = (await browser.get("/chat")).text
    assert page.index("Second talk") < page.index("First talk")
    answer = await browser.post(f"/chat/{one}/delete")
    assert answer.headers["hx-redirect"] == "/chat"
    assert (await browser.get(f"/chat/{one}")).status_code == 404
    assert (await browser.get(f"/replies/{reply_id}")).status_code == 404
    assert (await browser.get(f"/chat/{other}")).status_code == 200


async def test_the_drawer_sets_how_replies_are_written(browser: Browser, world: World) -> None:
    """The system prompt leads the next prompt, and the sampling is that of the next reply."""
    await browser.post(
        "/chat/preferences", persona="Be kind.", temperature=0, top_p=0.5, top_k=3, max_tokens=5
    )
    _, reply_id = await browser.ask()
    reply = await world.database.run(lambda db: db.replies.get(reply_id))
    assert reply.prompt[0].content == "Be kind."
    assert (reply.sampling.top_k, reply.sampling.max_tokens) == (3, 5)
    assert "Be kind." in (await browser.get("/chat")).text
    wrong = await browser.post(
        "/chat/preferences", persona="", temperature=9, top_p=0.5, top_k=3, max_tokens=5
    )
    assert wrong.status_code == 422


async def test_another_scopes_replies_are_not_here(browser: Browser, world: World) -> None:
    """A Discord server's reply is as if it did not exist, in every route of a reply."""
    ada = await world.database.run(lambda db: db.people.ensure("console", "ada", consent="given"))
    elsewhere = await world.chat.open("server", ada)
    reply = await (await world.chat.say(elsewhere, ada.id, "hi")).finished()
    assert (await browser.get(f"/chat/{elsewhere}")).status_code == 404
    for route in routes.routes:
        path = route.path.replace("{reply_id}", reply.id)  # type: ignore[attr-defined]
        if reply.id not in path:
            continue
        if "POST" in route.methods:  # type: ignore[attr-defined]
            answer = await browser.post(path, kind="up", reason="wrong", text="x")
        else:
            answer = await browser.get(path)
        assert answer.status_code == 404, path


async def test_what_breaks_unforeseen_is_one_sentence(
    browser: Browser, console: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No trace of the code reaches the page, and the next page works."""

    async def broken() -> None:
        raise RuntimeError("secret detail")

    with monkeypatch.context() as patched:
        patched.setattr(type(console.state.console), "person", lambda _: broken())
        answer = await browser.get("/chat")
    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert (await browser.get("/chat")).status_code == 200


async def test_odd_reasons_cannot_break_the_page(browser: Browser, world: World) -> None:
    """A reason somebody typed with quotes stays one value of the button."""
    _, reply_id = await browser.ask()
    person = (await world.database.run(lambda db: db.people.find("operator")))[0]
    await world.feedback.down(reply_id, person.id, """'"><script>x</script>""")
    page = (await browser.get(f"/replies/{reply_id}")).text
    assert "<script>" not in page
    vals = [json.loads(found) for found in re.findall(r"hx-vals='([^']*)'", page)]
    assert {"reason": """'"><script>x</script>"""} in vals


@pytest.mark.usefixtures("slowly")
async def test_a_stream_ends_where_its_conversation_was_deleted(browser: Browser) -> None:
    """Another window deletes it: nothing is left on the page, and nobody waits."""
    answer = await browser.post("/chat/new/messages", text="Go on")
    conversation = answer.headers["hx-redirect"].rpartition("/")[2]
    page = await browser.get(f"/chat/{conversation}")
    reply_id = re.findall(r'data-reply="(r_\w+)"', page.text)[-1]
    following = asyncio.create_task(browser.follow(reply_id))
    await asyncio.sleep(0.2)
    await browser.post(f"/chat/{conversation}/delete")
    assert (await following)[-1] == ("end", "")


async def test_a_swap_elsewhere_shows_on_open_pages(browser: Browser, world: World) -> None:
    """Pages ask who speaks; the answer follows the database."""
    assert (await browser.get("/speaking?known=base ")).status_code == 204
    name = await publish(world, 1, seed=1)
    await promote(world.database, world.settings.data_dir, name, actor="cli")
    assert name in (await browser.get("/speaking?known=base ")).text
