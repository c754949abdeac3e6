"""Bodies of messages as bots send them: checked, then turned into records.

Invariant: a body that Discord would refuse is refused here with its code and the path of the field,
for channels, webhooks and interactions alike. Stores nothing and announces nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.discord_double.errors import ApiError, empty_message, invalid_form, too_long
from tests.discord_double.records import (
    DEFAULT,
    EPHEMERAL,
    REPLY,
    Attachment,
    Channel,
    Json,
    Message,
)
from tests.discord_double.rest import FILE_LIMIT_BYTES, Call
from tests.discord_double.state import World

CONTENT_LIMIT, DESCRIPTION_LIMIT, CUSTOM_ID_LIMIT, LABEL_LIMIT = 2000, 4096, 100, 80
ROWS_LIMIT, ROW_WIDTH = 5, 5
ACTION_ROW, BUTTON = 1, 2
PARTS = ("content", "embeds", "components", "attachments")
"""Of these a message needs one."""


def drafted(call: Call, channel: Channel, body: Json, *, prefix: str = "") -> Message:
    """A new message of the bot's from `body`; `prefix` is where the body stands in its request."""
    check_body(body, prefix=prefix)
    check_files(call)
    now = call.world.clock.now()
    message = Message(
        call.world.clock.next_id(),
        channel,
        call.world.bot,
        body.get("content") or "",
        now,
        flags=body.get("flags") or 0,
        embeds=body.get("embeds") or [],
        components=body.get("components") or [],
        attachments=list(call.files.values()),
        allowed_mentions=body.get("allowed_mentions"),
        nonce=body.get("nonce"),
    )
    if not any(getattr(message, part) for part in PARTS):
        raise empty_message()
    message.reply_to = _replied_to(call.world, body)
    message.kind = REPLY if message.reply_to is not None else DEFAULT
    return message


def changes(call: Call, message: Message, body: Json, *, prefix: str = "") -> Json:
    """The fields of `message` that an edit with `body` sets."""
    check_body(body, prefix=prefix)
    check_files(call)
    changed: Json = {}
    for name, empty in (("content", ""), ("embeds", []), ("components", [])):
        if name in body:
            changed[name] = body[name] or empty
    if "flags" in body:
        changed["flags"] = (body["flags"] or 0) & ~EPHEMERAL | message.flags & EPHEMERAL
    if "allowed_mentions" in body:
        changed["allowed_mentions"] = body["allowed_mentions"]
    if "attachments" in body or call.files:
        changed["attachments"] = _kept(message, body) + list(call.files.values())
    if not any(changed.get(part, getattr(message, part)) for part in PARTS):
        raise empty_message()
    return changed


def check_body(body: Json, *, prefix: str = "") -> None:
    """Refuse texts that are too long and components that do not fit."""
    _check_length(f"{prefix}content", body.get("content"), CONTENT_LIMIT)
    for index, embed in enumerate(body.get("embeds") or []):
        where = f"{prefix}embeds.{index}.description"
        _check_length(where, embed.get("description"), DESCRIPTION_LIMIT)
    _check_components(f"{prefix}components", body.get("components") or [])


def check_files(call: Call) -> None:
    """Refuse a file over the limit."""
    if any(len(file.data) > FILE_LIMIT_BYTES for file in call.files.values()):
        raise ApiError(413, 40005, "Request entity too large")


def leaves(components: list[Json]) -> Iterator[Json]:
    """Every component at any depth."""
    for component in components:
        yield component
        inner = component.get("components") or []
        yield from leaves(inner)
        for name in ("component", "accessory"):
            if name in component:
                yield from leaves([component[name]])


def _check_components(where: str, components: list[Json]) -> None:
    rows = [component for component in components if component["type"] == ACTION_ROW]
    if len(rows) > ROWS_LIMIT:
        raise invalid_form(where, "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 5 in length.")
    for index, row in enumerate(components):
        if row["type"] == ACTION_ROW and not 1 <= len(row["components"]) <= ROW_WIDTH:
            raise invalid_form(
                f"{where}.{index}.components",
                "BASE_TYPE_BAD_LENGTH",
                "Must be between 1 and 5 in length.",
            )
    seen: set[str] = set()
    for component in leaves(components):
        _check_length(f"{where}.custom_id", component.get("custom_id"), CUSTOM_ID_LIMIT)
        if component["type"] == BUTTON:
            _check_length(f"{where}.label", component.get("label"), LABEL_LIMIT)
        custom_id = component.get("custom_id")
        if custom_id is not None and custom_id in seen:
            raise invalid_form(
                f"{where}.custom_id",
                "COMPONENT_CUSTOM_ID_DUPLICATED",
                "Component custom id cannot be duplicated",
            )
        seen.add(custom_id or "")


def _check_length(where: str, text: str | None, limit: int) -> None:
    if text is not None and len(text) > limit:
        raise too_long(where, limit)


def _replied_to(world: World, body: Json) -> Message | None:
    reference = body.get("message_reference")
    if not reference:
        return None
    channel = world.channels.get(int(reference.get("channel_id") or 0))
    places = [channel] if channel is not None else list(world.channels.values())
    for place in places:
        if (found := place.messages.get(int(reference["message_id"]))) is not None:
            return found
    if reference.get("fail_if_not_exists", True):
        raise invalid_form("message_reference", "REPLIES_UNKNOWN_MESSAGE", "Unknown message")
    return None


def _kept(message: Message, body: Json) -> list[Attachment]:
    if "attachments" not in body:
        return message.attachments
    listed = {str(entry["id"]) for entry in body.get("attachments") or []}
    return [kept for kept in message.attachments if str(kept.id) in listed]
