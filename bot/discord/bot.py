"""The Discord client: what every feature shares, loaded and connected.

Owns the connection's settings (intents, no pings), the command tree and its errors, and the replies
being written. Knows the services, never the model: this package imports no torch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import discord
from discord import app_commands
from discord.ext import commands

from bot.discord.access import Access
from bot.discord.answers import explain
from bot.discord.cogs import COGS
from bot.discord.cogs.arena import ArenaCog
from bot.discord.cogs.voting import VotingCog
from bot.discord.desk import Desk
from bot.discord.door import Door
from bot.discord.limits import RateLimit
from bot.discord.pace import EditPace
from bot.discord.places import Places
from bot.discord.shards import Shards, ShardState
from bot.privacy import Memory
from bot.world import World
from core.shares import ShardShare

log = logging.getLogger(__name__)
MINUTE_S = 60.0
C = TypeVar("C", bound=commands.Cog)
LEAVE_S = 15.0
"""How long replies being written may go on when the bot is told to stop."""
LAST_WORDS_S = 5.0
"""How long those that were stopped then have to show what they have."""


def quiet(_: str) -> None:
    """Take a line and say nothing."""


def wanted_intents(*, message_content: bool, members: bool) -> discord.Intents:
    """Return the least that is needed, and the privileged ones that the application was granted."""
    intents = discord.Intents.none()
    intents.guilds = True
    intents.guild_messages = True
    intents.dm_messages = True
    intents.guild_reactions = True
    intents.dm_reactions = True
    intents.message_content = message_content
    intents.members = members
    return intents


def owners_of(application: discord.AppInfo) -> set[int]:
    """Return who owns an application; of a team, those who may change it."""
    if application.team is None:
        return {application.owner.id}
    may = (discord.TeamMemberRole.admin, discord.TeamMemberRole.developer)
    accepted = discord.TeamMembershipState.accepted
    return {
        application.team.owner_id or 0,
        *(
            one.id
            for one in application.team.members
            if one.role in may and one.membership_state is accepted
        ),
    }


class ThumbtuneBot(commands.AutoShardedBot):
    """The bot on Discord: the servers of its share of the shards. `say` is told in a few words what
    the operator should know.
    """

    def __init__(
        self,
        world: World,
        *,
        share: ShardShare | None = None,
        intents: discord.Intents | None = None,
        say: Callable[[str], None] = quiet,
    ) -> None:
        self.pace = EditPace()
        self.share = share or ShardShare()
        self.shards_up = Shards(self.share)
        super().__init__(
            shard_count=self.share.shards,
            shard_ids=list(self.share.ids),
            command_prefix=(),
            help_command=None,
            intents=intents or wanted_intents(message_content=False, members=False),
            allowed_mentions=discord.AllowedMentions.none(),
            chunk_guilds_at_startup=False,
            http_trace=self.pace.trace_config(),
            tree_cls=Tree,
        )
        self.world = world
        self.say = say
        self.places = Places(world.database, world.settings)
        self.access = Access(world.database, world.settings, self.places)
        self.door = Door(self)
        self.desk = Desk(self)
        settings = world.settings.discord
        self.person_limit = RateLimit(settings.person_per_minute, MINUTE_S)
        self.channel_limit = RateLimit(settings.channel_per_minute, MINUTE_S)
        self._writing: set[asyncio.Task[Any]] = set()
        self._leaving = False

    @property
    def voting(self) -> VotingCog:
        """The feature that takes votes and corrections."""
        return self._feature(VotingCog)

    @property
    def arena(self) -> ArenaCog:
        """The feature that shows two replies to choose from."""
        return self._feature(ArenaCog)

    @property
    def memories(self) -> tuple[Memory, ...]:
        """What holds people's words for a while and can forget one of them."""
        return (self.world.chat.memory, self.desk.questions, self.voting.drafts)

    @property
    def leaving(self) -> bool:
        """Say whether the bot was told to stop: nothing new is begun then."""
        return self._leaving

    async def setup_hook(self) -> None:
        """Load the features and tell Discord the commands; runs once, after the log-in."""
        for cog in COGS:
            await self.add_cog(cog(self))
        application = self.application
        if application is not None:
            self.access.owners |= owners_of(application)
        if self.share.group.number == 0:  # the commands are the application's: once is enough
            await self.tree.sync()

    async def launch_shard(self, gateway: Any, shard_id: int, *, initial: bool = False) -> None:
        """Connect a shard at the distance that Discord asks for, kept while no socket is open yet:
        leaving meanwhile leaves none behind.
        """
        if not initial:
            await self.shards_up.gap()
        await super().launch_shard(gateway, shard_id, initial=True)

    async def before_identify_hook(self, _shard_id: int | None, *, initial: bool = False) -> None:
        """Keep the same distance where a shard begins anew."""
        if not initial:
            await self.shards_up.gap()

    async def on_shard_ready(self, shard_id: int) -> None:
        """Note that a shard came in."""
        self.shards_up.came(shard_id)

    async def on_shard_resumed(self, shard_id: int) -> None:
        """Note that a shard has its session back."""
        self.shards_up.came(shard_id)

    async def on_shard_disconnect(self, shard_id: int) -> None:
        """Note that a shard lost its connection."""
        self.shards_up.went(shard_id)

    async def on_message(self, message: discord.Message, /) -> None:
        """Leave messages to the chat feature: there are no prefix commands."""

    def writing(self) -> None:
        """Hold the current task as one that writes a reply: leaving waits for it."""
        task = asyncio.current_task()
        if task is not None:
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

    def _get_state(self, **options: Any) -> ShardState:
        return ShardState(
            dispatch=self.dispatch,
            handlers=self._handlers,
            hooks=self._hooks,
            http=self.http,
            **options,
        )

    def _feature(self, kind: type[C]) -> C:
        cog = self.get_cog(kind.__cog_name__)
        if not isinstance(cog, kind):
            raise RuntimeError(f"{kind.__name__} is not loaded; connect the bot first")
        return cog

    async def leave(self) -> None:
        """Begin nothing new, let running replies end for a while, then disconnect. Idempotent."""
        self._leaving = True
        if self._writing:
            await asyncio.wait(set(self._writing), timeout=LEAVE_S)
        if self._writing:
            self.desk.stop_all()
            await asyncio.wait(set(self._writing), timeout=LAST_WORDS_S)
        await self.close()


class Tree(app_commands.CommandTree[ThumbtuneBot]):
    """The commands; whatever one raises is told to the one who used it."""

    async def on_error(
        self, interaction: discord.Interaction[Any], error: app_commands.AppCommandError, /
    ) -> None:
        """Tell what failed in one plain sentence."""
        cause = error.original if isinstance(error, app_commands.CommandInvokeError) else error
        await explain(interaction, cause)
