"""People's pages: what is kept of each, a copy of it, and forgetting them."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from bot.console.here import Here
from bot.privacy import export_person, forget, holding

routes = APIRouter()
LISTED = 200


@routes.get("/people")
async def people_page(request: Request, console: Here) -> Response:
    """List everybody whose words or votes are kept."""
    people = await console.world.database.run(lambda db: db.people.list())
    return await console.page(
        request,
        "people.html",
        active="feedback",
        people=people[-LISTED:][::-1],
        count=len(people),
    )


@routes.get("/people/{person_id}")
async def person_page(request: Request, console: Here, person_id: str) -> Response:
    """Show how much is kept of a person."""
    database = console.world.database
    person = await database.run(lambda db: db.people.get(person_id))
    held = await holding(database, person_id)
    return await console.page(request, "person.html", active="feedback", person=person, held=held)


@routes.get("/people/{person_id}/export")
async def export(console: Here, person_id: str) -> Response:
    """Return everything held about a person, as a file."""
    held = await export_person(console.world.database, person_id)
    headers = {"content-disposition": 'attachment; filename="person.json"'}
    return Response(held, media_type="application/json", headers=headers)


@routes.post("/people/{person_id}/forget")
async def forget_person(console: Here, person_id: str) -> Response:
    """Remove what a person wrote and voted, for good."""
    world = console.world
    done = await forget(
        world.database,
        world.settings.data_dir,
        person_id,
        actor=console.actor(),
        memories=(world.chat.memory,),
    )
    return HTMLResponse(console.part("_forgotten.html", done=done))
