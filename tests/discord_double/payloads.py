"""Records as Discord writes them in JSON.

Pure functions of the world; who may read a message's content is decided by the caller and passed as
`content=`. Complete enough that discord.py parses every one without a default of its own.
"""

from __future__ import annotations

from tests.discord_double.clock import iso
from tests.discord_double.records import (
    ADMINISTRATOR,
    DEFAULT,
    DM,
    EVERYONE_MAY,
    THREAD,
    Attachment,
    Channel,
    Guild,
    Json,
    Message,
    User,
)
from tests.discord_double.state import Application, World


def user_json(user: User) -> Json:
    """An account."""
    return {
        "id": str(user.id),
        "username": user.name,
        "global_name": None if user.bot else user.name.title(),
        "discriminator": "0000" if user.bot else "0",
        "avatar": None,
        "bot": user.bot,
        "public_flags": 0,
    }


def member_json(guild: Guild, user: User, *, with_user: bool = True) -> Json:
    """An account's membership of `guild`."""
    member: Json = {
        "roles": [str(guild.admin_role_id)] if user.id in guild.admins else [],
        "joined_at": iso(guild.created_at),
        "nick": None,
        "avatar": None,
        "deaf": False,
        "mute": False,
        "pending": False,
        "flags": 0,
        "premium_since": None,
    }
    return member | {"user": user_json(user)} if with_user else member


def _role_json(role_id: int, name: str, permissions: int, position: int) -> Json:
    return {
        "id": str(role_id),
        "name": name,
        "permissions": str(permissions),
        "position": position,
        "color": 0,
        "colors": {"primary_color": 0, "secondary_color": None, "tertiary_color": None},
        "hoist": False,
        "managed": False,
        "mentionable": False,
        "flags": 0,
    }


def guild_json(guild: Guild) -> Json:
    """A server as GET returns it."""
    return {
        "id": str(guild.id),
        "name": guild.name,
        "icon": None,
        "owner_id": str(guild.owner.id),
        "roles": [
            _role_json(guild.id, "@everyone", EVERYONE_MAY, 0),
            _role_json(guild.admin_role_id, "admin", ADMINISTRATOR, 1),
        ],
        "emojis": [],
        "stickers": [],
        "features": [],
        "verification_level": 0,
        "default_message_notifications": 0,
        "explicit_content_filter": 0,
        "mfa_level": 0,
        "nsfw_level": 0,
        "premium_tier": 0,
        "system_channel_id": None,
        "system_channel_flags": 0,
        "afk_timeout": 300,
        "preferred_locale": "en-US",
    }


def guild_create_json(world: World, guild: Guild, *, members: list[User]) -> Json:
    """A server as the gateway announces it, with those of its members that are sent along."""
    channels = [channel for channel in guild.channels if channel.kind != THREAD]
    threads = [channel for channel in guild.channels if channel.kind == THREAD]
    return guild_json(guild) | {
        "unavailable": False,
        "large": False,
        "joined_at": iso(guild.created_at),
        "member_count": len(guild.members),
        "members": [member_json(guild, user) for user in members],
        "channels": [channel_json(world, channel) for channel in channels],
        "threads": [channel_json(world, channel) for channel in threads if not channel.archived],
        "voice_states": [],
        "presences": [],
        "stage_instances": [],
        "guild_scheduled_events": [],
        "soundboard_sounds": [],
    }


def channel_json(world: World, channel: Channel) -> Json:
    """A text channel, a thread or a DM."""
    last = max(channel.messages, default=None)
    base: Json = {
        "id": str(channel.id),
        "type": channel.kind,
        "last_message_id": None if last is None else str(last),
        "flags": 0,
    }
    if channel.kind == DM and channel.recipient is not None:
        return base | {"recipients": [user_json(channel.recipient)]}
    base |= {"name": channel.name, "rate_limit_per_user": 0}
    if channel.guild is not None:
        base["guild_id"] = str(channel.guild.id)
    return base | (_thread_part(world, channel) if channel.kind == THREAD else _text_part(channel))


def _text_part(channel: Channel) -> Json:
    everyone = str(channel.guild.id) if channel.guild else "0"
    denied = {"id": everyone, "type": 0, "allow": "0", "deny": str(channel.denied)}
    return {
        "position": 0,
        "permission_overwrites": [denied] if channel.denied else [],
        "nsfw": False,
        "parent_id": None,
        "topic": None,
    }


def _thread_part(world: World, channel: Channel) -> Json:
    opener, parent = channel.opened_by, channel.parent
    count = len(channel.messages)
    return {
        "parent_id": str(parent.id) if parent else None,
        "owner_id": str(opener.id) if opener else None,
        "member_count": 1,
        "message_count": count,
        "total_message_sent": count,
        "thread_metadata": {
            "archived": channel.archived,
            "locked": channel.locked,
            "auto_archive_duration": 1440,
            "archive_timestamp": iso(channel.created_at),
            "create_timestamp": iso(channel.created_at),
        },
        "member": {
            "id": str(channel.id),
            "user_id": str(world.bot.id),
            "join_timestamp": iso(channel.created_at),
            "flags": 0,
        },
    }


def message_json(world: World, message: Message, *, content: bool = True) -> Json:
    """A message; without `content`, as an application lacking the privileged intent gets it."""
    readable = content or world.meant_for_bot(message)
    base: Json = {
        "id": str(message.id),
        "channel_id": str(message.channel.id),
        "author": user_json(message.author),
        "type": message.kind,
        "flags": message.flags,
        "timestamp": iso(message.created_at),
        "edited_timestamp": None if message.edited_at is None else iso(message.edited_at),
        "tts": False,
        "pinned": False,
        "mention_everyone": message.mentions_everyone,
        "mentions": [_mentioned(message, user) for user in message.mentions],
        "mention_roles": [],
        "content": message.content if readable else "",
        "embeds": message.embeds if readable else [],
        "components": message.components if readable else [],
        "attachments": [attachment_json(world, message, a) for a in message.attachments]
        if readable
        else [],
        "reactions": [
            {"emoji": emoji_json(emoji), "count": len(ids), "me": world.bot.id in ids}
            | {"count_details": {"normal": len(ids), "burst": 0}, "burst_colors": []}
            | {"me_burst": False}
            for emoji, ids in message.reactions.items()
        ],
    }
    return base | _optional_parts(world, message, content=content)


def _optional_parts(world: World, message: Message, *, content: bool) -> Json:
    parts: Json = {}
    if message.nonce is not None:
        parts["nonce"] = message.nonce
    if message.interaction_metadata is not None:
        parts["interaction_metadata"] = message.interaction_metadata
    if message.author is world.bot:
        parts["application_id"] = str(world.application.id)
        if message.interaction_metadata is not None:
            parts["webhook_id"] = str(world.application.id)
    if message.reply_to is not None:
        parts["message_reference"] = reference_json(message.reply_to)
        gone = message.reply_to.deleted
        parts["referenced_message"] = (
            None if gone else message_json(world, message.reply_to, content=content)
        )
    return parts


def _mentioned(message: Message, user: User) -> Json:
    guild = message.channel.guild
    mentioned = user_json(user)
    if guild is not None and user.id in guild.members:
        mentioned["member"] = member_json(guild, user, with_user=False)
    return mentioned


def reference_json(target: Message) -> Json:
    """The pointer that a reply carries."""
    reference = {
        "type": DEFAULT,
        "message_id": str(target.id),
        "channel_id": str(target.channel.id),
    }
    guild = target.channel.guild
    return reference | ({"guild_id": str(guild.id)} if guild else {})


def attachment_json(world: World, message: Message, attachment: Attachment) -> Json:
    """A file on a message; its bytes are served at the url."""
    place = f"{message.channel.id}/{attachment.id}/{attachment.filename}"
    url = f"{world.files_url}/{place}"
    return {
        "id": str(attachment.id),
        "filename": attachment.filename,
        "size": len(attachment.data),
        "content_type": attachment.content_type,
        "url": url,
        "proxy_url": url,
    }


def emoji_json(emoji: str) -> Json:
    """A unicode emoji, or a custom one written name:id."""
    name, _, number = emoji.partition(":")
    return {"id": number, "name": name} if number else {"id": None, "name": emoji}


def application_json(application: Application) -> Json:
    """The application as its own bot reads it."""
    return {
        "id": str(application.id),
        "name": application.name,
        "description": "",
        "icon": None,
        "bot_public": False,
        "bot_require_code_grant": False,
        "verify_key": "0" * 64,
        "owner": user_json(application.owner),
        "team": None,
        "flags": application.flags,
        "approximate_guild_count": 1,
    }
