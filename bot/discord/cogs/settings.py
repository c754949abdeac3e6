"""What a server or channel sets for itself: /settings.

For those who manage the server, or hold a role that `/settings roles` names. A channel goes before
its server, the server before `config.toml`; a value left out takes the wider one again.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, cast

import discord
from discord import app_commands
from discord.ext import commands

from bot.discord.access import admin
from bot.discord.answers import guarded, show_form, tell
from bot.discord.effective import effective, persona_shown, roles_line
from bot.discord.forms import form, sent
from bot.discord.places import spot_of
from bot.discord.reset import ResetButton, reset_view
from bot.discord.text import pages
from bot.discord.wording import settings as words
from core.places import MAX_PERSONA_CHARS, Area, ChannelPlace, Listening, ServerPlace

if TYPE_CHECKING:
    from bot.discord.bot import ThumbtuneBot

Channel = discord.TextChannel | discord.VoiceChannel | discord.StageChannel | discord.ForumChannel
Interaction = discord.Interaction[Any]
NEEDS_CONTENT = ("all", "join")
PERSONA = re.compile(r"tt:persona:(?P<channel>[0-9]{1,20})")


@app_commands.default_permissions(manage_guild=True)
@app_commands.guild_only()
class SettingsCog(
    commands.GroupCog, group_name="settings", group_description="How I behave on this server"
):
    """What a server or channel sets for itself: /settings."""

    def __init__(self, bot: ThumbtuneBot) -> None:
        self._bot = bot
        super().__init__()

    async def cog_load(self) -> None:
        """Register the buttons; they work after a restart."""
        self._bot.add_dynamic_items(ResetButton)

    @app_commands.command(name="show")
    @admin("settings")
    async def show(self, interaction: Interaction, channel: Channel | None = None) -> None:
        """What holds here, and where each value comes from."""
        for page in pages(await effective(self._bot, channel or interaction.channel)):
            await tell(interaction, page)

    # -- how I write and listen

    @app_commands.command(name="persona")
    @app_commands.describe(text="Leave it out for a form with more room", channel="Only there")
    @admin("settings")
    async def persona(
        self,
        interaction: Interaction,
        text: app_commands.Range[str, 1, MAX_PERSONA_CHARS] | None = None,
        channel: Channel | None = None,
    ) -> None:
        """Who I am and how I speak, on the server or in one channel."""
        if text is not None:
            await self.set_persona(interaction, text.strip(), channel)
            return
        place = await self._place(interaction, channel)
        await show_form(
            interaction,
            form(
                f"tt:persona:{channel.id if channel else 0}",
                title=words.PERSONA_TITLE,
                label=words.PERSONA_LABEL,
                text=place.persona or "",
                limit=MAX_PERSONA_CHARS,
                required=False,
            ),
        )

    @commands.Cog.listener()
    @guarded
    async def on_interaction(self, interaction: Interaction) -> None:
        """Take the form of a persona; whoever sends it must still be allowed to."""
        filled = sent(interaction, PERSONA)
        if filled is None or interaction.guild is None:
            return
        match, text = filled
        await self._bot.access.check(interaction, "settings")
        channel = interaction.guild.get_channel(int(match["channel"]))
        if int(match["channel"]) and channel is None:
            await tell(interaction, words.CHANNEL_GONE)
            return
        await self.set_persona(interaction, text.strip() or None, cast("Channel | None", channel))

    async def set_persona(
        self, interaction: Interaction, persona: str | None, channel: Channel | None
    ) -> None:
        """Store a persona (None takes the wider setting again) and tell what changed."""
        if persona and len(persona) > MAX_PERSONA_CHARS:
            await tell(interaction, words.persona_too_long(len(persona), MAX_PERSONA_CHARS))
            return
        old, new = await self._change(interaction, channel, persona=persona)
        shown = persona_shown(old.persona), persona_shown(new.persona)
        await tell(interaction, words.changed("Persona", _where(channel), *shown))

    @app_commands.command(name="style")
    @app_commands.describe(
        temperature="0 is always the same, 2 is wild; leave both out for the wider setting",
        length="The longest reply in tokens; leave both out for the wider setting",
        channel="Only there",
    )
    @admin("settings")
    async def style(
        self,
        interaction: Interaction,
        temperature: app_commands.Range[float, 0, 2] | None = None,
        length: app_commands.Range[int, 1, 4096] | None = None,
        channel: Channel | None = None,
    ) -> None:
        """How freely and how long I write, on the server or in one channel."""
        room = self._bot.world.settings.serving.max_context_tokens
        if length is not None and length >= room:
            await tell(interaction, words.too_long(room))
            return
        values: dict[str, float | None] = {"temperature": temperature, "max_tokens": length}
        given = {key: value for key, value in values.items() if value is not None}
        changes = given or values
        old, new = await self._change(interaction, channel, **changes)
        lines = [
            words.changed(
                words.STYLE[key],
                _where(channel),
                _number(getattr(old, key)),
                _number(getattr(new, key)),
            )
            for key in changes
        ]
        await tell(interaction, "\n".join(lines))

    @app_commands.command(name="listen")
    @app_commands.describe(mode="What I answer", one_in="With join: one message in so many")
    @admin("settings")
    async def listen(
        self,
        interaction: Interaction,
        mode: Listening,
        one_in: app_commands.Range[int, 2, 1000] | None = None,
        channel: Channel | None = None,
    ) -> None:
        """Which messages I answer, in this channel or the one you name."""
        spot = spot_of(channel or interaction.channel)
        person = await self._bot.access.person(interaction.user.id)
        old = await self._bot.places.channel(spot)
        every = {} if one_in is None else {"join_one_in": one_in}
        new = await self._bot.places.change_channel(spot, person.id, listen=mode, **every)
        place = f"<#{spot.channel_id}>"
        text = words.changed("Listening", place, _listening(old), _listening(new))
        if mode in NEEDS_CONTENT and not self._bot.intents.message_content:
            text = f"{text}\n{words.NO_CONTENT}"
        await tell(interaction, text)

    @app_commands.command(name="arena")
    @app_commands.describe(one_in="One reply in so many is shown as two; 0 is never")
    @admin("settings")
    async def arena(
        self, interaction: Interaction, one_in: app_commands.Range[int, 0, 1000]
    ) -> None:
        """How often I show two replies to choose from."""
        old, new = await self._change(interaction, None, arena_one_in=one_in)
        shown = words.one_in(old.arena_one_in), words.one_in(new.arena_one_in)
        await tell(interaction, words.changed("Two replies", _where(None), *shown))

    # -- learning and rights

    @app_commands.command(name="training")
    @admin("settings")
    async def training(self, interaction: Interaction, state: Literal["on", "off"]) -> None:
        """Whether what people who opted in write here is kept and learnt from."""
        await self._change(interaction, None, training=state == "on")
        text = words.TRAINING_ON if state == "on" else words.TRAINING_OFF
        if state == "on" and not self._bot.world.settings.discord.training_permission.strip():
            text = f"{text}\n{words.NO_PERMISSION}"
        await tell(interaction, text)

    @app_commands.command(name="roles")
    @admin("settings")
    async def roles(
        self,
        interaction: Interaction,
        area: Area,
        role: discord.Role,
        action: Literal["add", "remove"],
    ) -> None:
        """Let a role use the commands of an area, or take that back."""
        server = await self._bot.places.server(spot_of(interaction.channel))
        named = server.roles.get(area, ())
        if (role.id in named) == (action == "add"):
            same = words.role_known if action == "add" else words.role_unknown
            await tell(interaction, same(area, role.mention))
            return
        left = tuple(one for one in named if one != role.id)
        mine = (*named, role.id) if action == "add" else left
        _, new = await self._change(interaction, None, roles={**server.roles, area: mine})
        await tell(interaction, roles_line(new, area))

    @app_commands.command(name="log")
    @app_commands.describe(channel="Leave it out to tell nowhere")
    @admin("settings")
    async def log(
        self, interaction: Interaction, channel: discord.TextChannel | None = None
    ) -> None:
        """Where each use of an admin command is told."""
        chosen = channel.id if channel else None
        old, new = await self._change(interaction, None, log_channel=chosen)
        text = words.changed(
            "Log channel", _where(None), _mentioned(old.log_channel), _mentioned(new.log_channel)
        )
        if channel and not channel.permissions_for(channel.guild.me).send_messages:
            text = f"{text}\n{words.log_blind(channel.mention)}"
        await tell(interaction, text)

    @app_commands.command(name="block")
    @admin("settings")
    async def block(self, interaction: Interaction, user: discord.User) -> None:
        """I no longer answer somebody on this server."""
        if self._bot.user is not None and user.id == self._bot.user.id:
            await tell(interaction, words.NOT_MYSELF)
            return
        blocked = (await self._bot.places.server(spot_of(interaction.channel))).blocked
        kept = tuple(one for one in blocked if one != user.id)
        await self._change(interaction, None, blocked=(*kept, user.id))
        await tell(interaction, words.blocked(user.mention))

    @app_commands.command(name="unblock")
    @admin("settings")
    async def unblock(self, interaction: Interaction, user: discord.User) -> None:
        """I answer somebody again."""
        blocked = (await self._bot.places.server(spot_of(interaction.channel))).blocked
        if user.id not in blocked:
            await tell(interaction, words.not_blocked(user.mention))
            return
        kept = tuple(one for one in blocked if one != user.id)
        await self._change(interaction, None, blocked=kept)
        await tell(interaction, words.unblocked(user.mention))

    @app_commands.command(name="blocked")
    @admin("settings")
    async def blocked(self, interaction: Interaction) -> None:
        """Whom I do not answer on this server."""
        blocked = (await self._bot.places.server(spot_of(interaction.channel))).blocked
        listed = words.block_list([f"<@{one}>" for one in blocked])
        for page in pages(listed if blocked else words.NONE_BLOCKED):
            await tell(interaction, page)

    @app_commands.command(name="reset-all")
    @admin("settings")
    async def reset_all(self, interaction: Interaction) -> None:
        """Take every setting of this server back to its default."""
        await tell(interaction, words.CONFIRM_RESET, view=reset_view())

    # -- reading and changing

    async def _place(
        self, interaction: Interaction, channel: Channel | None
    ) -> ServerPlace | ChannelPlace:
        places = self._bot.places
        if channel is not None:
            return await places.channel(spot_of(channel))
        return await places.server(spot_of(interaction.channel))

    async def _change(
        self, interaction: Interaction, channel: Channel | None, **changes: Any
    ) -> tuple[Any, Any]:
        """Change the server's settings, or a channel's; return them before and after."""
        person = await self._bot.access.person(interaction.user.id)
        before = await self._place(interaction, channel)
        places = self._bot.places
        if channel is not None:
            return before, await places.change_channel(spot_of(channel), person.id, **changes)
        return before, await places.change_server(
            spot_of(interaction.channel), person.id, **changes
        )


def _where(channel: Channel | None) -> str:
    return channel.mention if channel else "this server"


def _number(value: float | None) -> str:
    return words.NOTHING_GIVEN if value is None else f"{value:g}"


def _mentioned(channel_id: int) -> str:
    return f"<#{channel_id}>" if channel_id else "none"


def _listening(place: ChannelPlace) -> str:
    if place.listen == "join":
        return f"join ({words.one_in(place.join_one_in)})"
    return place.listen
