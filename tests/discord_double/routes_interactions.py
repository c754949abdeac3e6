"""Routes that answer interactions: the first response, and what follows under its token.

These routes need no bot token: whoever holds the interaction's may answer. An ephemeral message
lives only on its interaction, so other routes do not find it.
"""

from __future__ import annotations

from tests.discord_double.drafts import changes, drafted
from tests.discord_double.errors import invalid_form, unknown
from tests.discord_double.interactions import (
    COMMAND,
    COMPONENT,
    DEFER,
    DEFER_UPDATE,
    MODAL,
    MODAL_SUBMIT,
    SEND,
    UPDATE,
    Interaction,
)
from tests.discord_double.payloads import message_json, user_json
from tests.discord_double.records import (
    CHAT_COMMAND,
    DEFAULT,
    LOADING,
    MENU_COMMAND,
    Json,
    Message,
)
from tests.discord_double.rest import Answer, Call, Route

AUTOCOMPLETE = 8


def respond(call: Call) -> Answer:
    """POST the first response."""
    interaction = _by_callback(call)
    kind, data = call.body["type"], call.body.get("data") or {}
    prepared = _prepared(call, interaction, kind, data)
    interaction.acknowledge(kind)
    _show(call, interaction, prepared, data)
    interaction.note_change()
    if call.query.get("with_response") not in ("1", "true"):
        return None
    return _callback_json(call, interaction)


def _prepared(call: Call, interaction: Interaction, kind: int, data: Json) -> Message | None:
    """Check the response before it counts; the message it will show, if a new one."""
    if kind == SEND:
        return _new_message(call, interaction, data, prefix="data.")
    if kind == DEFER:
        return _spinner(call, interaction, data)
    if kind in (UPDATE, DEFER_UPDATE):
        _check_update(call, interaction, kind, data)
    elif kind == MODAL and interaction.kind == MODAL_SUBMIT:
        raise invalid_form("type", "INTERACTION_TYPE_INVALID", "A modal cannot answer a modal")
    elif kind == MODAL:
        _check_modal(data)
    elif kind != AUTOCOMPLETE:
        raise invalid_form("type", "BASE_TYPE_CHOICES", f"Value must be one of 4 to 9, not {kind}.")
    return None


def _show(call: Call, interaction: Interaction, prepared: Message | None, data: Json) -> None:
    if prepared is not None:
        interaction.original = _publish(call, prepared)
    elif interaction.callback_type == UPDATE and interaction.source is not None:
        interaction.original = interaction.source
        call.chat.edit(interaction.source, changes(call, interaction.source, data))
    elif interaction.callback_type == DEFER_UPDATE:
        interaction.original = interaction.source
    else:
        interaction.modal = data


def _check_update(call: Call, interaction: Interaction, kind: int, data: Json) -> None:
    if interaction.source is None:
        raise invalid_form("type", "BASE_TYPE_CHOICES", f"There is no message for type {kind}.")
    if kind == UPDATE:
        changes(call, interaction.source, data, prefix="data.")


def _check_modal(data: Json) -> None:
    for name, limit in (("title", 45), ("custom_id", 100)):
        if not 1 <= len(data.get(name, "")) <= limit:
            raise invalid_form(
                f"data.{name}", "BASE_TYPE_BAD_LENGTH", f"Must be between 1 and {limit} in length."
            )
    if not 1 <= len(data["components"]) <= 5:
        raise invalid_form(
            "data.components", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 5 in length."
        )


def _new_message(call: Call, interaction: Interaction, data: Json, *, prefix: str = "") -> Message:
    message = drafted(call, interaction.channel, data, prefix=prefix)
    message.kind = _message_type(interaction)
    message.interaction_metadata = _metadata(interaction)
    return message


def _spinner(call: Call, interaction: Interaction, data: Json) -> Message:
    message = Message(
        call.world.clock.next_id(),
        interaction.channel,
        call.world.bot,
        "",
        call.world.clock.now(),
        kind=_message_type(interaction),
        flags=LOADING | (data.get("flags") or 0),
    )
    message.interaction_metadata = _metadata(interaction)
    return message


def _message_type(interaction: Interaction) -> int:
    if interaction.kind != COMMAND:
        return DEFAULT
    return CHAT_COMMAND if interaction.data["type"] == 1 else MENU_COMMAND


def _metadata(interaction: Interaction) -> Json:
    guild = interaction.channel.guild
    owners = {"0": str(guild.id)} if guild is not None else {"0": "0"}
    metadata: Json = {
        "id": str(interaction.id),
        "type": interaction.kind,
        "user": user_json(interaction.user),
        "authorizing_integration_owners": owners,
    }
    if interaction.kind == COMPONENT and interaction.source is not None:
        metadata["interacted_message_id"] = str(interaction.source.id)
    return metadata


def _publish(call: Call, message: Message) -> Message:
    return call.chat.keep(message) if message.ephemeral else call.chat.post(message)


def _callback_json(call: Call, interaction: Interaction) -> Json:
    about: Json = {"id": str(interaction.id), "type": interaction.kind}
    resource: Json = {"type": interaction.callback_type}
    original = interaction.original
    if original is not None:
        about["response_message_id"] = str(original.id)
        about["response_message_loading"] = bool(original.flags & LOADING)
        about["response_message_ephemeral"] = original.ephemeral
    if original is not None and interaction.callback_type in (SEND, UPDATE):
        resource["message"] = message_json(call.world, original)
    return {"interaction": about, "resource": resource}


# -- under the token


def follow_up(call: Call) -> Answer:
    """POST a further message; the first after a deferral takes the spinner's place."""
    interaction = _by_token(call)
    original = interaction.original
    if original is not None and original.flags & LOADING:
        return _edit(call, interaction, original)
    message = _publish(call, _new_message(call, interaction, call.body))
    interaction.followups.append(message)
    interaction.note_change()
    return message_json(call.world, message)


def get_response(call: Call) -> Answer:
    """GET the first response or a further message."""
    return message_json(call.world, _answered(call, _by_token(call)))


def edit_response(call: Call) -> Answer:
    """PATCH the first response or a further message."""
    interaction = _by_token(call)
    return _edit(call, interaction, _answered(call, interaction))


def delete_response(call: Call) -> Answer:
    """DELETE the first response or a further message."""
    interaction = _by_token(call)
    call.chat.delete(_answered(call, interaction))
    interaction.note_change()
    return None


def _edit(call: Call, interaction: Interaction, message: Message) -> Json:
    changed = changes(call, message, call.body)
    changed["flags"] = changed.get("flags", message.flags) & ~LOADING
    call.chat.edit(message, changed)
    interaction.note_change()
    return message_json(call.world, message)


def _answered(call: Call, interaction: Interaction) -> Message:
    wanted = call.path["message"]
    mine = [interaction.original, interaction.source, *interaction.followups]
    if wanted == "@original":
        mine = [interaction.original]
    for message in mine:
        named = message is not None and wanted in ("@original", str(message.id))
        if message is not None and named and not message.deleted:
            return message
    raise unknown(10008, "Message")


def _by_callback(call: Call) -> Interaction:
    interaction = call.world.interactions.get(call.path["token"])
    if interaction is None or str(interaction.id) != call.path["interaction"]:
        raise unknown(10062, "interaction")
    return interaction


def _by_token(call: Call) -> Interaction:
    interaction = call.world.interactions.get(call.path["token"])
    if interaction is None:
        raise unknown(10015, "Webhook")
    if call.path["application"] != str(call.world.application.id):
        raise unknown(10015, "Webhook")
    interaction.check_token(call.world.clock.now())
    return interaction


_HOOK = "/webhooks/{application}/{token}"
_ONE = f"{_HOOK}/messages/{{message}}"

ROUTES = (
    Route("POST", "/interactions/{interaction}/{token}/callback", respond, open=True),
    Route("POST", _HOOK, follow_up, open=True),
    Route("GET", _ONE, get_response, open=True),
    Route("PATCH", _ONE, edit_response, open=True),
    Route("DELETE", _ONE, delete_response, open=True),
)
