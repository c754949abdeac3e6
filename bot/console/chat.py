"""The chat's pages: conversations, replies as they are written, votes, corrections, versions.

Invariant: a POST begins a reply and a GET only follows it; a reply's id is in its address, and what
a vote on it means the services decide. Nothing is ever written twice by looking again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from bot.chat import ReplyInProgress
from bot.console import preferences
from bot.console.here import Console, Here
from bot.console.stream import Event, streamed
from bot.console.talk import (
    MessageItem,
    UnansweredItem,
    list_talks,
    own_reply,
    read_reply,
    read_talk,
    require_here,
)
from core.errors import Conflict, EngineBusy, NotFound, ThumbtuneError
from core.records import Reply
from storage.database import Database

routes = APIRouter()
PAINT_S = 0.08
"""A reply being written is shown anew at most so often."""
ELSEWHERE_S = 0.5
"""How often a reply that another process writes is looked at."""
Text = Annotated[str, Form()]


# -- pages


@routes.get("/chat")
async def newest(console: Here) -> Response:
    """Lead to the newest conversation, or to an empty one."""
    person = await console.person()
    talks = await list_talks(console, person.id)
    return RedirectResponse(f"/chat/{talks[0].id if talks else 'new'}", status_code=303)


@routes.get("/chat/{conversation_id}")
async def chat_page(request: Request, console: Here, conversation_id: str) -> Response:
    """Show a conversation; `new` is one in which nothing was said."""
    world, scope = console.world, console.scope
    person = await console.person()
    new = conversation_id == "new"
    talk = None if new else await read_talk(console, conversation_id, person.id)
    row = await world.database.run(lambda db: db.scopes.ensure(scope))
    return await console.page(
        request,
        "chat.html",
        active="chat",
        conversation="" if new else conversation_id,
        title=talk.title if talk else "New conversation",
        items=talk.items if talk else (),
        conversations=await list_talks(console, person.id),
        waiting=await _waiting(console),
        persona=row.persona,
        sampling=await console.sampling(),
        most_tokens=preferences.most_tokens(console.settings),
        settings=console.settings,
    )


# -- talking


@routes.post("/chat/{conversation_id}/messages")
async def say(console: Here, conversation_id: str, text: Text = "") -> Response:
    """Store a message and begin the reply to it; show both."""
    chat, scope = console.world.chat, console.scope
    clean = chat.checked(text)
    person = await console.person()
    new = conversation_id == "new"
    if new:
        conversation_id = await chat.open(scope, person)
    else:
        await _require_quiet(console, conversation_id)
    try:
        sampling = await console.sampling()
        writing = await chat.say(conversation_id, person.id, clean, sampling=sampling)
        end = await _reply_html(console, writing.reply.id)
    except ThumbtuneError as error:  # the message is kept: it can be answered later
        end = _unanswered(console, conversation_id, error)
    if new:
        return Response(status_code=204, headers={"hx-redirect": f"/chat/{conversation_id}"})
    return HTMLResponse(console.part("_item.html", item=MessageItem(clean)) + end)


@routes.post("/chat/{conversation_id}/answer")
async def answer(console: Here, conversation_id: str) -> Response:
    """Begin a reply to a message that has none."""
    await _require_quiet(console, conversation_id)
    chat = console.world.chat
    sampling = await console.sampling()
    try:
        writing = await chat.answer(conversation_id, sampling=sampling)
    except EngineBusy as error:
        return HTMLResponse(_unanswered(console, conversation_id, error))
    return HTMLResponse(await _reply_html(console, writing.reply.id))


@routes.post("/chat/{conversation_id}/delete")
async def delete(console: Here, conversation_id: str) -> Response:
    """Delete a conversation with everything said of it."""
    scope = console.scope
    await console.world.database.run(lambda db: require_here(db, conversation_id, scope))
    await console.world.chat.delete(conversation_id, actor=console.actor())
    return Response(status_code=204, headers={"hx-redirect": "/chat"})


# -- one reply


@routes.get("/replies/{reply_id}")
async def show_reply(console: Here, reply_id: str) -> Response:
    """Show one version of a reply."""
    return HTMLResponse(await _reply_html(console, reply_id))


@routes.get("/replies/{reply_id}/events")
async def follow(console: Here, reply_id: str) -> Response:
    """Follow a reply as it is written; one that is whole is shown at once."""
    await _own(console, reply_id)
    return streamed(_written(console, reply_id), console.closing)


@routes.post("/replies/{reply_id}/stop")
async def stop(console: Here, reply_id: str) -> Response:
    """Stop writing; what is there is kept."""
    await _own(console, reply_id)
    writing = console.world.chat.running(reply_id)
    if writing:
        writing.cancel()
    return Response(status_code=204)


@routes.post("/replies/{reply_id}/vote")
async def vote(
    console: Here, reply_id: str, kind: Annotated[Literal["up", "down", "none"], Form()]
) -> Response:
    """Store a vote, or take it back."""
    await _own(console, reply_id)
    person, feedback = await console.person(), console.world.feedback
    if kind == "up":
        await feedback.up(reply_id, person.id)
    elif kind == "down":
        await feedback.down(reply_id, person.id)
    else:
        await feedback.withdraw(reply_id, person.id)
    return await _judged(console, reply_id)


@routes.post("/replies/{reply_id}/reasons")
async def reasons(
    console: Here, reply_id: str, reason: Annotated[str, Form(min_length=1, max_length=100)]
) -> Response:
    """Add a reason to the 👎, or take it off."""
    await _own(console, reply_id)
    person = await console.person()
    await console.world.feedback.toggle_tag(reply_id, person.id, reason)
    return await _judged(console, reply_id)


@routes.post("/replies/{reply_id}/correction")
async def correct(console: Here, reply_id: str, text: Text = "") -> Response:
    """Store what the reply should have been."""
    await _own(console, reply_id)
    person = await console.person()
    await console.world.feedback.correct(reply_id, person.id, text)
    return await _judged(console, reply_id)


@routes.post("/replies/{reply_id}/again")
async def again(console: Here, reply_id: str) -> Response:
    """Begin another version of a reply and show that."""
    old = await _own(console, reply_id)
    await _require_quiet(console, old.conversation_id)
    person, chat = await console.person(), console.world.chat
    sampling = await console.sampling()
    writing = await chat.again(reply_id, person.id, sampling=sampling)
    return HTMLResponse(await _reply_html(console, writing.reply.id))


# -- how replies are written


@routes.post("/chat/preferences")
async def set_preferences(
    console: Here, chosen: Annotated[preferences.Preferences, Form()]
) -> Response:
    """Keep the system prompt and how tokens are drawn."""
    most = preferences.most_tokens(console.settings)
    fitting = chosen.model_copy(update={"max_tokens": min(chosen.max_tokens, most)})
    await preferences.store(console.world.database, console.scope, fitting, actor=console.actor())
    return Response(status_code=204)


@routes.post("/chat/preferences/reset")
async def reset_preferences(console: Here) -> Response:
    """Go back to what the settings say."""
    await preferences.reset(console.world.database, console.scope, actor=console.actor())
    return Response(status_code=204, headers={"hx-refresh": "true"})


# -- private


async def _written(console: Console, reply_id: str) -> AsyncIterator[Event]:
    writing = console.world.chat.running(reply_id)
    if writing is not None:
        async for event in _painted(console, writing):
            yield event
        await asyncio.gather(writing.finished(), return_exceptions=True)
    try:
        while (await _own(console, reply_id)).state == "pending":
            await asyncio.sleep(ELSEWHERE_S)
        yield Event("end", await _end_html(console, reply_id))
    except NotFound:  # deleted meanwhile, perhaps in another window
        yield Event("end", "")


async def _painted(console: Console, writing: ReplyInProgress) -> AsyncIterator[Event]:
    """Yield how many replies come before this one, then its text as it grows."""
    shown, chat = "", console.world.chat
    while chat.running(writing.reply.id) and not writing.text and (ahead := writing.ahead()):
        yield Event("text", console.part("_queued.html", ahead=ahead))
        await asyncio.sleep(ELSEWHERE_S)
    async for text in writing.follow():
        if text != shown:
            shown = text
            yield Event("text", console.part("_said.html", text=text))
        await asyncio.sleep(PAINT_S)


async def _end_html(console: Console, reply_id: str) -> str:
    reply = await _own(console, reply_id)
    if reply.state == "failed":
        why = "The reply could not be written. Your message is kept."
        item = UnansweredItem(reply.conversation_id, why)
        return console.part("_item.html", item=item)
    return await _reply_html(console, reply_id)


async def _own(console: Console, reply_id: str) -> Reply:
    scope = console.scope
    return await console.world.database.run(lambda db: own_reply(db, reply_id, scope))


async def _require_quiet(console: Console, conversation_id: str) -> None:
    """Check that no reply is being written in a conversation of this console."""
    scope = console.scope

    def checked(db: Database) -> bool:
        require_here(db, conversation_id, scope)
        replies = db.replies.of_conversation(conversation_id)
        return any(reply.state == "pending" for reply in replies)

    if await console.world.database.run(checked):
        raise Conflict("a reply is being written here; wait for it, or stop it")


async def _reply_html(console: Console, reply_id: str) -> str:
    person = await console.person()
    return console.part("_reply.html", v=await read_reply(console, reply_id, person.id))


async def _judged(console: Console, reply_id: str) -> Response:
    """Show the reply as it was judged, and how much waits to be learnt now."""
    waiting = console.part("_waiting.html", waiting=await _waiting(console), oob=True)
    return HTMLResponse(await _reply_html(console, reply_id) + waiting)


def _unanswered(console: Console, conversation_id: str, error: ThumbtuneError) -> str:
    said = str(error)
    item = UnansweredItem(conversation_id, said[0].upper() + said[1:] + ".")
    return console.part("_item.html", item=item)


async def _waiting(console: Console) -> int:
    scope = console.scope
    return (await console.world.database.run(lambda db: db.feedback.waiting(scope)))[0]
