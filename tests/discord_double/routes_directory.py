"""Routes that answer who and where: the bot itself, people, servers, DMs, registered commands."""

from __future__ import annotations

import re

from tests.discord_double.errors import invalid_form, unknown
from tests.discord_double.payloads import (
    application_json,
    channel_json,
    guild_json,
    member_json,
    user_json,
)
from tests.discord_double.records import THREAD, Json
from tests.discord_double.rest import Answer, Call, Route

CHAT_INPUT = 1
COMMAND_NAME = re.compile(r"[-_\w]{1,32}")
DESCRIPTION_LIMIT = 100
SUBCOMMAND_TYPES = (1, 2)


def get_self(call: Call) -> Answer:
    """GET the bot's account."""
    return user_json(call.world.bot) | {"verified": True, "mfa_enabled": False}


def get_application(call: Call) -> Answer:
    """GET the bot's application."""
    return application_json(call.world.application)


def get_user(call: Call) -> Answer:
    """GET an account."""
    return user_json(call.world.find_user(call.path["user"]))


def open_dm(call: Call) -> Answer:
    """POST a direct channel with somebody."""
    user = call.world.find_user(str(call.body["recipient_id"]))
    return channel_json(call.world, call.world.dm_with(user))


def list_own_guilds(call: Call) -> Answer:
    """GET the servers the bot is in."""
    return [guild_json(guild) for guild in call.world.guilds.values() if guild.has_bot]


def get_guild(call: Call) -> Answer:
    """GET a server."""
    return guild_json(call.world.find_guild(call.path["guild"]))


def leave_guild(call: Call) -> Answer:
    """DELETE the bot's membership."""
    call.world.find_guild(call.path["guild"]).has_bot = False
    return None


def list_channels(call: Call) -> Answer:
    """GET a server's channels, threads left out."""
    guild = call.world.find_guild(call.path["guild"])
    return [channel_json(call.world, c) for c in guild.channels if c.kind != THREAD]


def get_member(call: Call) -> Answer:
    """GET a membership, or 10007 when they are gone."""
    guild = call.world.find_guild(call.path["guild"])
    user = call.world.find_user(call.path["user"])
    if user.id not in guild.members:
        raise unknown(10007, "Member")
    return member_json(guild, user)


def list_active_threads(call: Call) -> Answer:
    """GET a server's threads that are not archived."""
    guild = call.world.find_guild(call.path["guild"])
    threads = [c for c in guild.channels if c.kind == THREAD and not c.archived]
    told = [channel_json(call.world, thread) for thread in threads]
    return {"threads": told, "members": [entry["member"] for entry in told], "has_more": False}


# -- commands


def put_commands(call: Call) -> Answer:
    """PUT the whole list of commands, for everywhere or for one server."""
    guild_id = call.path.get("guild")
    if guild_id is not None:
        call.world.find_guild(guild_id)
    for index, command in enumerate(call.body):
        _check_command(command, str(index))
    _check_names(call.body)
    place = None if guild_id is None else int(guild_id)
    call.world.commands[place] = [_registered(call, command, guild_id) for command in call.body]
    return call.world.commands[place]


def list_commands(call: Call) -> Answer:
    """GET the commands registered for everywhere or for one server."""
    guild_id = call.path.get("guild")
    return call.world.commands.get(None if guild_id is None else int(guild_id), [])


def _registered(call: Call, command: Json, guild_id: str | None) -> Json:
    kept = {
        "type": CHAT_INPUT,
        "description": "",
        "id": str(call.world.clock.next_id()),
        "application_id": str(call.world.application.id),
        "version": str(call.world.clock.next_id()),
        "default_member_permissions": None,
    }
    kept |= command
    return kept | ({"guild_id": guild_id} if guild_id is not None else {})


def _check_command(command: Json, where: str) -> None:
    if command.get("type", CHAT_INPUT) != CHAT_INPUT:
        _check_text(command["name"], f"{where}.name", 32)
        return
    name = command["name"]
    if not COMMAND_NAME.fullmatch(name) or name != name.lower():
        raise invalid_form(
            f"{where}.name",
            "APPLICATION_COMMAND_INVALID_NAME",
            "Command name is invalid",
        )
    _check_text(command.get("description", ""), f"{where}.description", DESCRIPTION_LIMIT)
    for index, option in enumerate(command.get("options") or []):
        _check_command(option | {"type": CHAT_INPUT}, f"{where}.options.{index}")
    _check_required_first(command.get("options") or [], where)


def _check_required_first(options: list[Json], where: str) -> None:
    needed = [bool(o.get("required")) for o in options if o["type"] not in SUBCOMMAND_TYPES]
    if needed != sorted(needed, reverse=True):
        raise invalid_form(
            f"{where}.options",
            "APPLICATION_COMMAND_OPTIONS_REQUIRED_INVALID",
            "Required options must be placed before non-required options",
        )


def _check_names(commands: list[Json]) -> None:
    names = [(command.get("type", CHAT_INPUT), command["name"]) for command in commands]
    if len(set(names)) != len(names):
        raise invalid_form(
            "name",
            "APPLICATION_COMMANDS_DUPLICATE_NAME",
            "Application command names must be unique",
        )


def _check_text(text: str, where: str, limit: int) -> None:
    if not 1 <= len(text) <= limit:
        raise invalid_form(
            where, "BASE_TYPE_BAD_LENGTH", f"Must be between 1 and {limit} in length."
        )


_COMMANDS = "/applications/{application}/commands"
_GUILD_COMMANDS = "/applications/{application}/guilds/{guild}/commands"

ROUTES = (
    Route("GET", "/users/@me", get_self),
    Route("GET", "/users/@me/guilds", list_own_guilds),
    Route("DELETE", "/users/@me/guilds/{guild}", leave_guild),
    Route("POST", "/users/@me/channels", open_dm),
    Route("GET", "/oauth2/applications/@me", get_application),
    Route("GET", "/applications/@me", get_application),
    Route("GET", "/users/{user}", get_user),
    Route("GET", "/guilds/{guild}", get_guild),
    Route("GET", "/guilds/{guild}/channels", list_channels),
    Route("GET", "/guilds/{guild}/members/{user}", get_member),
    Route("GET", "/guilds/{guild}/threads/active", list_active_threads),
    Route("PUT", _COMMANDS, put_commands),
    Route("GET", _COMMANDS, list_commands),
    Route("PUT", _GUILD_COMMANDS, put_commands),
    Route("GET", _GUILD_COMMANDS, list_commands),
)
