"""The application at Discord: who the token belongs to, what it was granted, how it is invited.

Looking asks the REST API only; no gateway session is opened, so it may be done beside a running
bot. Every failure is one plain sentence for the operator. Knows no world and no database.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import aiohttp
import discord
import yarl
from discord.gateway import DiscordWebSocket
from discord.http import Route

from core.errors import ConfigError, ThumbtuneError
from core.sections import DiscordSettings
from core.settings import Settings

log = logging.getLogger(__name__)
PORTAL = "https://discord.com/developers/applications"
NO_TOKEN = (
    f"not set up: make an application at {PORTAL}, put DISCORD_TOKEN=... into .env and run "
    "thumbtune doctor again (docs/discord.md shows each step)"
)
REASON_CHARS = 200
BAD_TOKEN_CODE = 4004
"""With which the gateway closes the connection of a token that was reset meanwhile."""
BAD_TOKEN = (
    f"DISCORD_TOKEN: Discord does not accept it; reset it at {PORTAL} (Bot, Reset Token) and put "
    "the new one into .env"
)
TOO_FEW_SHARDS_CODE = 4011
"""With which the gateway closes the connection of a shard that would hold too many servers."""
TOO_FEW_SHARDS = (
    "discord.shards: this bot is on more servers than so many shards may hold; write 0 for what "
    "Discord recommends, or a larger multiple of discord.groups"
)
INTENTS_WITHDRAWN = (
    "Discord refused the privileged intents: they were switched off at "
    f"{PORTAL} (Bot) a moment ago; start again and the bot does without them"
)


@dataclass(frozen=True, slots=True)
class Sessions:
    """Over how many shards Discord would have a bot connect, and how often it may still begin a
    session until its count begins anew; None where an API counts none.
    """

    recommended_shards: int = 1
    left: int | None = None
    resets_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Application:
    """An application, which privileged intents it was granted in the developer portal, and the
    sessions it may begin.
    """

    id: int
    name: str
    message_content: bool
    members: bool
    sessions: Sessions = Sessions()


def permissions() -> discord.Permissions:
    """Return exactly what the bot needs on a server."""
    return discord.Permissions(
        view_channel=True,
        send_messages=True,
        send_messages_in_threads=True,
        read_message_history=True,
        embed_links=True,
        attach_files=True,
    )


def invite_link(application_id: int) -> str:
    """Return the link by which somebody who manages a server adds the bot to it."""
    return discord.utils.oauth_url(
        application_id, permissions=permissions(), scopes=("bot", "applications.commands")
    )


def use_endpoints(settings: DiscordSettings) -> None:
    """Let discord.py speak to the API and gateway that the settings name, and say nothing of the
    voice packages that a bot without a voice has no use for. Idempotent.

    The library takes them for the whole process. A session is resumed where the gateway's READY
    says (`resume_gateway_url`), so another gateway must name itself there.
    """
    Route.BASE = settings.api_url.rstrip("/")
    DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(settings.gateway_url)
    discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False


async def look(settings: Settings) -> Application:
    """Ask Discord whose token this is and what was granted.

    Raises ConfigError for a token or an address that cannot be used, ThumbtuneError where Discord
    cannot be reached or fails.
    """
    if settings.discord_token is None:
        raise ConfigError([NO_TOKEN])
    use_endpoints(settings.discord)
    client = discord.Client(intents=discord.Intents(guilds=True))  # none would be warned of
    try:
        await client.login(settings.discord_token.get_secret_value())
        return replace(_application(client), sessions=await _sessions(client))
    except (TypeError, KeyError, aiohttp.InvalidURL) as error:  # what answers is no such API
        raise ConfigError([_no_api(settings.discord.api_url)]) from error
    except ValueError as error:  # no header may hold such a token
        raise ConfigError([BAD_TOKEN]) from error
    except (discord.DiscordException, aiohttp.ClientError, OSError) as error:
        raise plain_fault(error, settings.discord) from error
    finally:
        await client.close()


def plain_fault(error: BaseException, settings: DiscordSettings) -> ThumbtuneError:
    """Turn what discord.py raised while connecting into one sentence that says what to do.

    What nobody foresaw is logged with its trace.
    """
    address = settings.api_url
    fault = _fault_of_settings(error, address)
    if fault:
        return ConfigError([fault])
    if isinstance(error, discord.ConnectionClosed):
        return ThumbtuneError(f"Discord closed the connection with code {error.code}; try again")
    if isinstance(error, discord.HTTPException):
        reason = " ".join(error.text.split())[:REASON_CHARS] or "no reason given"
        return ThumbtuneError(
            f"Discord answered {error.status} at {address} ({reason}); try again in a few minutes"
        )
    if isinstance(error, OSError | aiohttp.ClientError):
        return ThumbtuneError(
            f"Discord cannot be reached at {address} ({error or type(error).__name__}); check the "
            "network, and api_url and gateway_url in [discord]"
        )
    log.error("connecting to Discord failed", exc_info=error)
    return ThumbtuneError(f"connecting to Discord failed: {type(error).__name__}: {error}")


def _fault_of_settings(error: BaseException, address: str) -> str:
    """Return what is wrong with the settings if they are at fault, or nothing."""
    code = error.code if isinstance(error, discord.ConnectionClosed) else None
    if code == BAD_TOKEN_CODE or isinstance(error, discord.LoginFailure):
        return BAD_TOKEN
    if code == TOO_FEW_SHARDS_CODE:
        return TOO_FEW_SHARDS
    if isinstance(error, discord.PrivilegedIntentsRequired):
        return INTENTS_WITHDRAWN
    return _no_api(address) if isinstance(error, discord.NotFound) else ""


async def _sessions(client: discord.Client) -> Sessions:
    """Ask how sessions are to be begun; an API without shards has no answer to that."""
    try:
        found = await client.http.request(Route("GET", "/gateway/bot"))
    except discord.NotFound:
        return Sessions()
    limit = found["session_start_limit"]
    return Sessions(found["shards"], limit["remaining"], limit["reset_after"] / 1000)


def _no_api(address: str) -> str:
    return (
        f"discord.api_url: no Discord API at {address}; the address ends with its version, as in "
        "https://discord.com/api/v10"
    )


def _application(client: discord.Client) -> Application:
    application, user = client.application, client.user
    if application is None or user is None:
        raise ThumbtuneError("Discord did not say whose token this is; try again")
    flags = application.flags
    return Application(
        id=application.id,
        name=user.name,
        message_content=flags.gateway_message_content or flags.gateway_message_content_limited,
        members=flags.gateway_guild_members or flags.gateway_guild_members_limited,
    )
