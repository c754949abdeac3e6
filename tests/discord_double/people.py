"""What people do in servers and channels, with what the bot is then told.

Every deed is a coroutine, so that a test in another thread can run it on the double's loop; it
returns the record that it made. People obey no permissions here: a test says what they do.
"""

from __future__ import annotations

from tests.discord_double.chat import Chat
from tests.discord_double.gateway import (
    DIRECT_MESSAGES,
    GUILD_MEMBERS,
    GUILD_TYPING,
    GUILDS,
    Gateway,
)
from tests.discord_double.payloads import channel_json, member_json, message_json, user_json
from tests.discord_double.records import (
    DEFAULT,
    REPLY,
    THREAD,
    Attachment,
    Channel,
    Guild,
    Json,
    Message,
    Revision,
    User,
)
from tests.discord_double.state import World


class People:
    """The people's side of the double."""

    def __init__(self, world: World, gateway: Gateway, chat: Chat) -> None:
        self.world = world
        self.gateway = gateway
        self.chat = chat

    # -- servers and membership

    async def user(self, name: str, bot: bool = False) -> User:
        """A new account."""
        return self.world.add_user(name, bot=bot)

    async def guild(
        self, name: str, *, members: list[User] | None = None, shard: tuple[int, int] = (0, 1)
    ) -> Guild:
        """A server that the bot is in, on this shard of so many; the first member owns it."""
        guild = self.world.add_guild(name, members=members or [], shard=shard)
        self.gateway.announce(guild)
        return guild

    async def text_channel(self, guild: Guild, name: str) -> Channel:
        """A new text channel."""
        channel = self.world.add_text_channel(guild, name)
        self.chat.tell_channel("CHANNEL_CREATE", channel)
        return channel

    async def thread(
        self, user: User, channel: Channel, name: str, *, on: Message | None = None
    ) -> Channel:
        """A thread that `user` opens, on a message or on none."""
        return self.chat.open_thread(channel, name, by=user, on=on)

    async def delete_channel(self, channel: Channel) -> None:
        """Take a channel or a thread away with all that is in it."""
        event = "THREAD_DELETE" if channel.kind == THREAD else "CHANNEL_DELETE"
        self.chat.tell_channel(event, channel)
        self.world.channels.pop(channel.id)
        if channel.guild is not None:
            channel.guild.channels.remove(channel)

    async def deny(self, channel: Channel, permissions: int) -> None:
        """Take `permissions` (bits) from everyone in `channel`; 0 gives all back."""
        channel.denied = permissions
        data = channel_json(self.world, channel)
        if channel.guild is not None and channel.guild.has_bot:
            self.gateway.dispatch("CHANNEL_UPDATE", data, intent=GUILDS)

    async def make_admin(self, guild: Guild, user: User) -> None:
        """Give `user` the server's administrator role."""
        guild.admins.add(user.id)
        self._tell_member("GUILD_MEMBER_UPDATE", guild, member_json(guild, user))

    async def join(self, guild: Guild, user: User) -> None:
        """Let `user` join."""
        guild.members[user.id] = user
        self._tell_member("GUILD_MEMBER_ADD", guild, member_json(guild, user))

    async def leave(self, guild: Guild, user: User) -> None:
        """Let `user` leave."""
        guild.members.pop(user.id, None)
        guild.admins.discard(user.id)
        self._tell_member("GUILD_MEMBER_REMOVE", guild, {"user": user_json(user)})

    async def remove_bot_from(self, guild: Guild) -> None:
        """Throw the bot out of `guild`."""
        guild.has_bot = False
        guild.members.pop(self.world.bot.id, None)
        self.gateway.dispatch("GUILD_DELETE", {"id": str(guild.id)}, intent=GUILDS)

    async def add_bot_to(self, guild: Guild) -> None:
        """Let the bot back into `guild`."""
        guild.has_bot = True
        guild.members[self.world.bot.id] = self.world.bot
        self.gateway.announce(guild)

    async def block_bot(self, user: User) -> None:
        """Let `user` refuse direct messages from the bot."""
        user.blocks_bot = True

    # -- talking

    async def say(
        self,
        user: User,
        channel: Channel,
        content: str,
        *,
        reply_to: Message | None = None,
        mention_bot: bool = False,
        attachments: int = 0,
        ping: bool = True,
    ) -> Message:
        """Post a message; a reply pings its author unless `ping` is off."""
        text = f"<@{self.world.bot.id}> {content}".rstrip() if mention_bot else content
        message = Message(
            self.world.clock.next_id(),
            channel,
            user,
            text,
            self.world.clock.now(),
            kind=DEFAULT if reply_to is None else REPLY,
            attachments=[self._file(number) for number in range(attachments)],
            reply_to=reply_to,
            allowed_mentions=None if ping else {"parse": ["users"], "replied_user": False},
        )
        return self.chat.post(message)

    async def dm(self, user: User, content: str, **rest: object) -> Message:
        """Write to the bot directly; `rest` as for `say`."""
        return await self.say(user, self.world.dm_with(user), content, **rest)  # type: ignore[arg-type]

    async def edit(self, message: Message, content: str) -> Message:
        """Let the author change what it says."""
        return self.chat.edit(message, {"content": content})

    async def delete(self, message: Message) -> None:
        """Take a message away."""
        self.chat.delete(message)

    async def react(self, user: User, message: Message, emoji: str) -> None:
        """Add a reaction."""
        self.chat.react(user, message, emoji)

    async def unreact(self, user: User, message: Message, emoji: str) -> None:
        """Take a reaction back."""
        self.chat.unreact(user, message, emoji)

    async def start_typing(self, user: User, channel: Channel) -> None:
        """Let the bot see `user` type."""
        now = self.world.clock.now()
        data: Json = {"channel_id": str(channel.id), "user_id": str(user.id), "timestamp": int(now)}
        if channel.guild is not None:
            member = member_json(channel.guild, user)
            data |= {"guild_id": str(channel.guild.id), "member": member}
        intent = GUILD_TYPING if channel.guild is not None else DIRECT_MESSAGES << 2
        self.gateway.dispatch("TYPING_START", data, intent=intent)

    # -- looking

    def messages(self, channel: Channel) -> list[Message]:
        """What stands in `channel` now, the oldest first."""
        return [channel.messages[i] for i in sorted(channel.messages)]

    def history_of(self, message: Message) -> list[Revision]:
        """All that `message` has said, with times; what it says now is the last."""
        return message.history

    def as_json(self, message: Message) -> Json:
        """`message` as a client with the privileged intent sees it."""
        return message_json(self.world, message)

    def _file(self, number: int) -> Attachment:
        return Attachment(self.world.clock.next_id(), f"file{number}.txt", b"text of a file")

    def _tell_member(self, event: str, guild: Guild, data: Json) -> None:
        if guild.has_bot:
            place = {"guild_id": str(guild.id)}
            self.gateway.dispatch(event, data | place, intent=GUILD_MEMBERS)
