"""The Discord face of a running world: connected, kept connected, and left in good order.

discord.py reconnects by itself; what it gives up on (a withdrawn intent, a session that was
refused, a fault of its own) ends one bot, and after a pause another takes its place. The rest of
the process never stops for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager

from bot.discord.application import Sessions, look, plain_fault
from bot.discord.bot import ThumbtuneBot, wanted_intents
from bot.discord.lock import only_server
from bot.discord.servers import claim
from bot.world import World
from core.errors import ThumbtuneError
from core.garbage import spare_the_loop
from core.shares import ShardShare

log = logging.getLogger(__name__)
READY_S = 60.0
"""How long the gateway may take to accept a shard at the start; further ones come after it."""
FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 600.0
STEADY_S = 600.0
"""A connection that held this long makes the pauses start small again."""


@asynccontextmanager
async def discord_face(
    world: World, say: Callable[[str], None]
) -> AsyncIterator[ThumbtuneBot | None]:
    """Connect the world to Discord for the time of the block; None where no token is set.

    Raises ConfigError or ThumbtuneError, in one plain sentence, if the start fails. `say` is told
    when the connection is lost for good and when it is there again.
    """
    if world.settings.discord_token is None:
        yield None
        return
    connection = Connection(world, say)
    bot = await connection.open()
    spare_the_loop()
    try:
        yield bot
    finally:
        await connection.close()


class Connection:
    """One bot at a time, and the task that keeps it connected."""

    def __init__(self, world: World, say: Callable[[str], None]) -> None:
        self._world = world
        self._say = say
        self._bot: ThumbtuneBot | None = None
        self._running: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._alone = ExitStack()

    async def open(self) -> ThumbtuneBot:
        """Connect, and stay connected until `close`."""
        self._alone.enter_context(only_server(self._world.settings.data_dir))
        try:
            bot = await self._connect()
        except BaseException:
            self._alone.close()
            raise
        self._keeper = asyncio.create_task(self._keep(), name="discord-keeper")
        return bot

    async def close(self) -> None:
        """Let running replies end, disconnect, and wait for it. Idempotent."""
        if self._keeper:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await self._end()
        self._alone.close()

    async def _connect(self) -> ThumbtuneBot:
        """Start a bot and wait until it is ready; leave nothing behind if it fails."""
        settings = self._world.settings
        application = await look(settings)
        share = settings.discord.share(application.sessions.recommended_shards)
        await self._world.database.run(lambda db: claim(db, share))
        _enough(application.sessions, share)
        intents = wanted_intents(
            message_content=application.message_content, members=application.members
        )
        self._bot = bot = ThumbtuneBot(self._world, share=share, intents=intents, say=self._say)
        try:
            token = settings.discord_token
            await bot.login(token.get_secret_value() if token else "")
            self._running = asyncio.create_task(bot.connect(), name="discord")
            await self._ready(bot, self._running)
        except BaseException as error:
            await self._end()
            if isinstance(error, Exception) and not isinstance(error, ThumbtuneError):
                raise plain_fault(error, settings.discord) from error
            raise
        return bot

    async def _ready(self, bot: ThumbtuneBot, running: asyncio.Task[None]) -> None:
        ready = asyncio.create_task(bot.shards_up.first_ready(), name="discord-ready")
        try:
            await asyncio.wait(
                {ready, running}, timeout=READY_S, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            ready.cancel()
        if running.done():
            await running
            raise ThumbtuneError("the connection to Discord ended before it was ready; try again")
        if not bot.shards_up.ready:
            address = self._world.settings.discord.gateway_url
            raise ThumbtuneError(
                f"the Discord gateway {address} did not let the bot in within {READY_S:.0f} s; "
                "check the network, and gateway_url in [discord]"
            )

    async def _keep(self) -> None:
        """Put another bot in the place of one whose connection ended for good."""
        loop, pause_s, lost = asyncio.get_running_loop(), FIRST_PAUSE_S, ""
        while True:
            since = loop.time()
            if self._running is not None:
                lost = await self._lost(self._running)
                pause_s = FIRST_PAUSE_S if loop.time() - since > STEADY_S else pause_s
            await self._end()
            log.error("not connected to Discord: %s", lost)
            self._say(f"Discord: {lost}; trying again in {pause_s:.0f} s")
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            try:
                await self._connect()
                self._say("Discord: connected again")
            except ThumbtuneError as error:
                lost = str(error)

    async def _lost(self, running: asyncio.Task[None]) -> str:
        """Wait until a connection ends and return why."""
        await asyncio.wait({running})
        error = running.exception()
        if error is None:
            return "the connection was closed"
        return str(plain_fault(error, self._world.settings.discord))

    async def _end(self) -> None:
        bot, running = self._bot, self._running
        self._bot = self._running = None
        if bot is not None:
            await bot.leave()
        if running is not None:
            running.cancel()  # discord.py tries a first handshake again and again, closed or not
            await asyncio.gather(running, return_exceptions=True)


def _enough(sessions: Sessions, share: ShardShare) -> None:
    """Refuse a start that takes more sessions than are left: Discord would reset the token."""
    needed = len(share.ids)
    if sessions.left is not None and sessions.left < needed:
        raise ThumbtuneError(
            f"Discord lets this bot begin {sessions.left} more sessions within the next "
            f"{sessions.resets_after_s / 3600:.1f} h, and {needed} shards take {needed}; beyond "
            "that it would reset the token, so wait, and find out what starts the bot so often"
        )
