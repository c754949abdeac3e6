"""What people do with the bot's buttons, commands and forms.

Invariant: only what Discord's own client offers is possible: a button that is there and enabled, a
registered command with its required options, a form that fits its limits; anything else raises
ValueError in the test. Each deed returns the interaction, on which a test can wait.
"""

from __future__ import annotations

from typing import Any

from tests.discord_double.commands import Registered, find_command, option_values
from tests.discord_double.drafts import leaves
from tests.discord_double.interactions import COMMAND, COMPONENT, MODAL_SUBMIT, Interaction
from tests.discord_double.payloads import channel_json, member_json, message_json, user_json
from tests.discord_double.people import People
from tests.discord_double.records import EVERYONE_MAY, EVERYTHING, Channel, Json, Message, User

TEXT_INPUT, ROW, LABEL = 4, 1, 18
CHAT_INPUT, ON_USER, ON_MESSAGE = 1, 2, 3
FILE_LIMIT_BYTES = 10 * 1024 * 1024


class Pressing(People):
    """The people's side of interactions."""

    async def press(self, user: User, message: Message, custom_id: str) -> Interaction:
        """Press a button."""
        button = _component(message, custom_id)
        data = {"custom_id": custom_id, "component_type": button["type"]}
        return self._interact(COMPONENT, user, message.channel, data, source=message)

    async def select(
        self, user: User, message: Message, custom_id: str, values: list[str]
    ) -> Interaction:
        """Choose from a menu."""
        menu = _component(message, custom_id)
        data = {"custom_id": custom_id, "component_type": menu["type"], "values": values}
        return self._interact(COMPONENT, user, message.channel, data, source=message)

    async def slash(self, user: User, channel: Channel, name: str, **options: Any) -> Interaction:
        """Use a command, its subcommands named after it: "training status"."""
        command = find_command(self.world, channel, name.split(maxsplit=1)[0], CHAT_INPUT)
        self._check_may_use(user, channel, command)
        data = command.data(CHAT_INPUT)
        inner = data
        level = command.definition
        for part in name.split()[1:]:
            level = _sub(level, part, name)
            step: Json = {"name": part, "type": level["type"]}
            inner["options"] = [step]
            inner = step
        inner["options"], data["resolved"] = option_values(channel.guild, level, options)
        return self._interact(COMMAND, user, channel, data)

    async def context_menu(
        self, user: User, target: Message | User, name: str, *, channel: Channel | None = None
    ) -> Interaction:
        """Use a command from the menu of a message or, in `channel`, of a person."""
        if isinstance(target, Message):
            kind, where = ON_MESSAGE, target.channel
            resolved: Json = {"messages": {str(target.id): message_json(self.world, target)}}
        elif channel is not None:
            kind, where = ON_USER, channel
            resolved = {"users": {str(target.id): user_json(target)}}
        else:
            raise ValueError(f"context menu {name!r} on a person: say in which channel")
        command = find_command(self.world, where, name, kind)
        self._check_may_use(user, where, command)
        data = command.data(kind) | {"target_id": str(target.id), "resolved": resolved}
        return self._interact(COMMAND, user, where, data)

    async def submit_modal(
        self, user: User, interaction: Interaction, values: dict[str, str]
    ) -> Interaction:
        """Send the form that `interaction` opened, with texts by custom id."""
        modal = interaction.modal
        if modal is None:
            raise ValueError(f"no form was opened by {interaction.data}")
        unknown = set(values) - {leaf.get("custom_id") for leaf in leaves(modal["components"])}
        if unknown:
            raise ValueError(f"the form has no fields {sorted(unknown)}: {modal['components']}")
        data = {
            "custom_id": modal["custom_id"],
            "components": [_filled(part, values) for part in modal["components"]],
        }
        return self._interact(
            MODAL_SUBMIT, user, interaction.channel, data, source=interaction.source
        )

    # -- what the bot is told

    def _interact(
        self, kind: int, user: User, channel: Channel, data: Json, *, source: Message | None = None
    ) -> Interaction:
        world = self.world
        made = Interaction(
            world.clock.next_id(),
            world.new_token(),
            kind,
            user,
            channel,
            data,
            world.clock.now(),
            source,
        )
        world.add_interaction(made)
        self.gateway.dispatch("INTERACTION_CREATE", self._interaction_json(made))
        return made

    def _interaction_json(self, made: Interaction) -> Json:
        told: Json = {
            "id": str(made.id),
            "application_id": str(self.world.application.id),
            "type": made.kind,
            "token": made.token,
            "version": 1,
            "data": made.data,
            "channel_id": str(made.channel.id),
            "channel": channel_json(self.world, made.channel),
            "locale": "en-US",
            "entitlements": [],
            "attachment_size_limit": FILE_LIMIT_BYTES,
        }
        if made.source is not None:
            told["message"] = message_json(self.world, made.source)
        return told | self._where_and_who(made)

    def _where_and_who(self, made: Interaction) -> Json:
        guild = made.channel.guild
        if guild is None:
            return {
                "user": user_json(made.user),
                "app_permissions": str(EVERYTHING),
                "authorizing_integration_owners": {"0": "0"},
                "context": 1,
            }
        permissions = str(guild.permissions_of(made.user))
        return {
            "guild_id": str(guild.id),
            "guild": {"id": str(guild.id), "locale": "en-US", "features": []},
            "guild_locale": "en-US",
            "member": member_json(guild, made.user) | {"permissions": permissions},
            "app_permissions": str(EVERYONE_MAY & ~made.channel.takes_away),
            "authorizing_integration_owners": {"0": str(guild.id)},
            "context": 0,
        }

    def _check_may_use(self, user: User, channel: Channel, command: Registered) -> None:
        guild = channel.guild
        needed = int(command.definition["default_member_permissions"] or 0)
        if guild is None or guild.permissions_of(user) & needed == needed:
            return
        raise ValueError(f"{user.name} is not offered {command.name!r}: it needs {needed:#x}")


def _component(message: Message, custom_id: str) -> Json:
    """The pressable part of `message` with this id."""
    if message.deleted:
        raise ValueError(f"the message with {custom_id!r} is deleted")
    for leaf in leaves(message.components):
        if leaf.get("custom_id") == custom_id:
            if leaf.get("disabled"):
                raise ValueError(f"{custom_id!r} is disabled")
            return leaf
    there = [leaf["custom_id"] for leaf in leaves(message.components) if "custom_id" in leaf]
    raise ValueError(f"no {custom_id!r} on the message; there are {there}")


def _sub(level: Json, part: str, name: str) -> Json:
    options = level.get("options") or []
    for option in options:
        if option["name"] == part and option["type"] in (1, 2):
            return option
    raise ValueError(f"/{name}: no {part!r} among {[option['name'] for option in options]}")


def _filled(part: Json, values: dict[str, str]) -> Json:
    """A part of a form as its submission carries it."""
    if part["type"] == ROW:
        return {"type": ROW, "components": [_filled(p, values) for p in part["components"]]}
    if part["type"] == LABEL:
        return {"type": LABEL, "component": _filled(part["component"], values)}
    if "custom_id" not in part:
        return {"type": part["type"]}
    custom_id = part["custom_id"]
    if part["type"] != TEXT_INPUT:
        chosen = [values[custom_id]] if custom_id in values else []
        return {"type": part["type"], "custom_id": custom_id, "values": chosen}
    text = values.get(custom_id, part.get("value") or "")
    least = (part.get("min_length") or 1) if part.get("required", True) else 0
    if not least <= len(text) <= (part.get("max_length") or 4000):
        raise ValueError(f"{custom_id!r}: {len(text)} characters do not fit the field {part}")
    return {"type": TEXT_INPUT, "custom_id": custom_id, "value": text}
