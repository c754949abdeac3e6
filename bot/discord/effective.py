"""Which settings hold in one place and where each comes from, in words: `/settings show`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from bot.discord.places import spot_of
from bot.discord.text import excerpt
from bot.discord.wording import settings as words
from core.places import Area, ChannelPlace, ServerPlace

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot

PERSONA_CHARS = 200


async def effective(bot: ThumbtuneBot, channel: Any) -> str:
    """Return what holds on the server and in the channel, a line each."""
    spot = spot_of(channel)
    server, place = await bot.places.server(spot), await bot.places.channel(spot)
    return "\n".join(
        [
            words.HEAD_SERVER,
            *_server_lines(bot, server),
            words.head_channel(f"<#{spot.channel_id}>"),
            *_channel_lines(bot, server, place),
        ]
    )


def persona_shown(persona: str | None) -> str:
    """Return a persona on one line, or what stands for none."""
    if persona is None:
        return words.NOTHING_GIVEN
    return excerpt(persona, PERSONA_CHARS) if persona else words.DEFAULTS["persona"]


def roles_line(server: ServerPlace, area: Area) -> str:
    """Return who may use the commands of an area."""
    return words.roles(area, [f"<@&{role}>" for role in server.roles.get(area, ())])


def _server_lines(bot: ThumbtuneBot, server: ServerPlace) -> list[str]:
    permitted = bool(bot.world.settings.discord.training_permission.strip())
    log_channel = f"<#{server.log_channel}>" if server.log_channel else "none"
    lines = [
        _chosen("Training", words.training(server.training, permitted), server, "training"),
        _chosen("Two replies", words.one_in(server.arena_one_in), server, "arena_one_in"),
        _chosen("Log channel", log_channel, server, "log_channel"),
        _chosen("People I do not answer", str(len(server.blocked)), server, "blocked"),
    ]
    return [*lines, *(roles_line(server, area) for area in get_args(Area))]


def _channel_lines(bot: ThumbtuneBot, server: ServerPlace, place: ChannelPlace) -> list[str]:
    chat = bot.world.settings.chat
    listening = words.LISTENING[place.listen]
    if place.listen == "join":
        listening = f"{listening} ({words.one_in(place.join_one_in)})"
    source = "channel" if "listen" in place.model_fields_set else "default"
    return [
        words.line("Listening", listening, words.SOURCES[source]),
        _widest("Persona", "persona", place, server, chat.persona),
        _widest("Temperature", "temperature", place, server, chat.temperature),
        _widest("Longest reply, in tokens", "max_tokens", place, server, chat.max_tokens),
    ]


def _chosen(name: str, value: str, server: ServerPlace, field: str) -> str:
    """A server's own setting: nobody wider gives it, but the default."""
    source = "server" if field in server.model_fields_set else "default"
    return words.line(name, value, words.SOURCES[source])


def _widest(
    name: str, field: str, place: ChannelPlace, server: ServerPlace, operator: str | float
) -> str:
    """The narrowest value that is given: the channel's, the server's, the operator's."""
    given = {"channel": getattr(place, field), "server": getattr(server, field)}
    source = next((key for key, value in given.items() if value is not None), "operator")
    value = given.get(source, operator)
    shown = persona_shown(str(value)) if field == "persona" else f"{value:g}"
    return words.line(name, shown, words.SOURCES[source])
