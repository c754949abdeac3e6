"""The world behind the API: everything the double remembers, found by id.

Invariant: a look-up on the bot's behalf refuses as Discord would (unknown, no access), so a route
needs no checks of its own. Knows no sockets and writes no JSON.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from tests.discord_double.clock import Clock
from tests.discord_double.errors import missing_access, missing_permissions, unknown
from tests.discord_double.interactions import Interaction
from tests.discord_double.records import (
    DM,
    READ_HISTORY,
    TEXT,
    VIEW_CHANNEL,
    Channel,
    Guild,
    Json,
    Message,
    User,
)

SEES_CONTENT = 1 << 18 | 1 << 19
"""Application flags, either of which lets it read messages not meant for it."""


@dataclass(slots=True, eq=False)
class Application:
    """The bot's entry in the developer portal: `flags` hold its privileged intents."""

    id: int
    owner: User
    token: str
    flags: int
    name: str = "Thumbtune under test"


class World:
    """People, servers, channels, messages, commands and interactions."""

    def __init__(self, clock: Clock, *, token: str, flags: int) -> None:
        self.clock = clock
        self.users: dict[int, User] = {}
        self.guilds: dict[int, Guild] = {}
        self.channels: dict[int, Channel] = {}
        self.commands: dict[int | None, list[Json]] = {}
        self.interactions: dict[str, Interaction] = {}
        self.files_url = ""
        self.bot = self.add_user("thumbtune", bot=True)
        owner = self.add_user("operator")
        self.application = Application(self.bot.id, owner, token, flags)

    # -- adding

    def add_user(self, name: str, *, bot: bool = False) -> User:
        """A new account."""
        user = User(self.clock.next_id(), name, bot)
        self.users[user.id] = user
        return user

    def add_guild(
        self, name: str, *, members: list[User], shard: tuple[int, int] = (0, 1)
    ) -> Guild:
        """A server with the bot in it, owned by the first of `members` or by the operator; `shard`
        is one (number, of how many) that its id is to fall to.
        """
        owner = members[0] if members else self.application.owner
        guild = Guild(
            self.clock.next_id_on(*shard), name, owner, self.clock.next_id(), self.clock.now()
        )
        guild.members = {user.id: user for user in [self.bot, owner, *members]}
        self.guilds[guild.id] = guild
        return guild

    def add_channel(self, channel: Channel) -> Channel:
        """Make `channel` known, in its server too."""
        self.channels[channel.id] = channel
        if channel.guild is not None:
            channel.guild.channels.append(channel)
        return channel

    def add_text_channel(self, guild: Guild, name: str) -> Channel:
        """A new text channel of `guild`."""
        made = Channel(self.clock.next_id(), TEXT, name, self.clock.now(), guild=guild)
        return self.add_channel(made)

    def dm_with(self, user: User) -> Channel:
        """The direct channel between `user` and the bot, opened at need."""
        for channel in self.channels.values():
            if channel.recipient is user:
                return channel
        made = Channel(self.clock.next_id(), DM, "", self.clock.now(), recipient=user)
        return self.add_channel(made)

    def add_interaction(self, interaction: Interaction) -> Interaction:
        """Make `interaction` answerable under its token."""
        self.interactions[interaction.token] = interaction
        return interaction

    def new_token(self) -> str:
        """A token for an interaction."""
        return secrets.token_urlsafe(24)

    # -- finding, on the bot's behalf

    def find_user(self, user_id: str) -> User:
        """The account, or 10013."""
        user = self.users.get(_number(user_id))
        if user is None:
            raise unknown(10013, "User")
        return user

    def find_guild(self, guild_id: str) -> Guild:
        """The server, or 10004; without the bot in it, 50001."""
        guild = self.guilds.get(_number(guild_id))
        if guild is None:
            raise unknown(10004, "Guild")
        if not guild.has_bot:
            raise missing_access()
        return guild

    def find_channel(self, channel_id: str, *, needs: int = 0) -> Channel:
        """The channel, or 10003; 50001 where the bot cannot look, 50013 without all of `needs`."""
        channel = self.channels.get(_number(channel_id))
        if channel is None:
            raise unknown(10003, "Channel")
        if not self.bot_sees(channel):
            raise missing_access()
        if channel.takes_away & needs:
            raise missing_permissions()
        return channel

    def find_message(
        self, channel_id: str, message_id: str, *, needs: int = READ_HISTORY
    ) -> Message:
        """The message, or 10008; an ephemeral one is found by its interaction only."""
        message = self.find_channel(channel_id, needs=needs).messages.get(_number(message_id))
        if message is None:
            raise unknown(10008, "Message")
        return message

    # -- what the bot may see

    def bot_sees(self, channel: Channel) -> bool:
        """Whether the bot is there and may look."""
        gone = channel.guild is not None and not channel.guild.has_bot
        return not gone and not channel.takes_away & VIEW_CHANNEL

    def meant_for_bot(self, message: Message) -> bool:
        """Whether its content comes without the privileged intent."""
        direct = message.channel.kind == DM
        return direct or message.author is self.bot or self.bot in message.mentions

    @property
    def application_sees_content(self) -> bool:
        """Whether the REST API shows all content."""
        return bool(self.application.flags & SEES_CONTENT)


def _number(snowflake: str) -> int:
    return int(snowflake) if snowflake.isdecimal() else -1
