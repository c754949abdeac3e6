"""Registered commands as people find and fill them.

Invariant: what is sent to the bot fits what it registered: known options, the required ones given,
each with the type and the resolved objects that its definition calls for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.discord_double.payloads import member_json, user_json
from tests.discord_double.records import Channel, Guild, Json, User
from tests.discord_double.state import World

GUILD_CONTEXT, BOT_DM_CONTEXT = 0, 1


@dataclass(frozen=True, slots=True)
class Registered:
    """A command as the bot registered it."""

    name: str
    definition: Json

    def data(self, kind: int) -> Json:
        """The start of an interaction's data."""
        start = {"id": self.definition["id"], "name": self.name, "type": kind}
        guild_id = self.definition.get("guild_id")
        return start | ({"guild_id": guild_id} if guild_id is not None else {})


def find_command(world: World, channel: Channel, name: str, kind: int) -> Registered:
    """The command that a person in `channel` would be offered; a server's own comes first."""
    guild = channel.guild
    own = world.commands.get(guild.id, []) if guild is not None else []
    offered = own + [c for c in world.commands.get(None, []) if _is_for(c, channel)]
    for command in offered:
        if command["name"] == name and command["type"] == kind:
            return Registered(name, command)
    raise ValueError(f"no command {name!r} of type {kind}; offered: {[c['name'] for c in offered]}")


def _is_for(command: Json, channel: Channel) -> bool:
    contexts = command.get("contexts")
    if channel.guild is not None:
        return contexts is None or GUILD_CONTEXT in contexts
    if contexts is None:
        return command.get("dm_permission") is not False
    return BOT_DM_CONTEXT in contexts


def option_values(
    guild: Guild | None, level: Json, given: dict[str, Any]
) -> tuple[list[Json], Json]:
    """The options of a command filled with `given`, and the objects they refer to."""
    defined = {option["name"]: option for option in level.get("options") or []}
    if unknown := set(given) - set(defined):
        raise ValueError(f"{level['name']!r} has no options {sorted(unknown)}, but {list(defined)}")
    missing = [n for n, option in defined.items() if option.get("required") and n not in given]
    if missing:
        raise ValueError(f"{level['name']!r} needs {missing}")
    resolved: Json = {}
    filled = [_filled(guild, defined[name], value, resolved) for name, value in given.items()]
    return filled, resolved


def _filled(guild: Guild | None, option: Json, value: Any, resolved: Json) -> Json:
    choices = [choice["value"] for choice in option.get("choices") or []]
    if choices and value not in choices:
        raise ValueError(f"{option['name']!r} takes one of {choices}, not {value!r}")
    sent = _resolve(guild, value, resolved) if isinstance(value, User | Channel) else value
    return {"name": option["name"], "type": option["type"], "value": sent}


def _resolve(guild: Guild | None, value: User | Channel, resolved: Json) -> str:
    key = str(value.id)
    if isinstance(value, Channel):
        resolved.setdefault("channels", {})[key] = {
            "id": key,
            "name": value.name,
            "type": value.kind,
            "permissions": "0",
        }
        return key
    resolved.setdefault("users", {})[key] = user_json(value)
    if guild is not None and value.id in guild.members:
        member = member_json(guild, value, with_user=False) | {"permissions": "0"}
        resolved.setdefault("members", {})[key] = member
    return key
