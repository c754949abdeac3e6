"""The gateway: sockets, sessions, and every event in order.

Invariant: an event gets its sequence number and its place in the session's log when it is
dispatched, socket or none, so a RESUME replays exactly what the client missed. Dispatching never
waits: each socket has a queue and a writer. Intents and its shard decide what a session is sent.
Knows no REST.
"""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import WSMsgType, web

from tests.discord_double.line import Line, Session
from tests.discord_double.payloads import guild_create_json, member_json, user_json
from tests.discord_double.records import Guild, Json
from tests.discord_double.state import World

GUILDS, GUILD_MEMBERS, GUILD_PRESENCES = 1 << 0, 1 << 1, 1 << 8
GUILD_MESSAGES, GUILD_REACTIONS, GUILD_TYPING = 1 << 9, 1 << 10, 1 << 11
DIRECT_MESSAGES, DIRECT_REACTIONS, MESSAGE_CONTENT = 1 << 12, 1 << 13, 1 << 15

NEEDED_FLAGS = {
    GUILD_PRESENCES: 1 << 12 | 1 << 13,
    GUILD_MEMBERS: 1 << 14 | 1 << 15,
    MESSAGE_CONTENT: 1 << 18 | 1 << 19,
}
"""For each privileged intent, the application flags either of which grants it."""

Payload = Json | Callable[[int], Json]
"""An event's data, or a function of a session's intents that gives it."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A client's heartbeat: when it came (monotonic seconds) and the last sequence it knew."""

    at: float
    seq: int | None


class Gateway:
    """Accepts clients, keeps their sessions and tells them what happens."""

    def __init__(self, world: World, *, heartbeat_interval_ms: int) -> None:
        self.url = ""
        self.heartbeat_interval_ms = heartbeat_interval_ms
        self.acknowledges = True
        self.heartbeats: list[Heartbeat] = []
        self.identifies: list[Json] = []
        self.resumes: list[Json] = []
        self.presences: list[Json] = []
        self.recommended_shards = 1
        self.without_shards = False
        self.starts_left = 1000
        self.shard_servers = 2500
        self.identify_gap_s = 0.0
        self._identified_at = -math.inf
        self.sessions: dict[str, Session] = {}
        self._world = world
        self._lines: set[Line] = set()
        self._operations: dict[int, Callable[[Line, Json], None]] = {
            1: self._heartbeat,
            2: self._identify,
            3: lambda _line, frame: self.presences.append(frame["d"]),
            6: self._resume,
            8: self._request_members,
        }

    # -- what happens to clients

    def dispatch(self, event: str, data: Payload, *, intent: int = 0) -> None:
        """Tell every session that asked for `intent` (0: all of them) and whose shard it is."""
        for session in self.sessions.values():
            if not intent or session.intents & intent:
                built = data(session.intents) if callable(data) else data
                if session.hears(_guild_id(event, built)):
                    self._log(session, event, built)

    def announce(self, guild: Guild) -> None:
        """Tell every session of a server that the bot is in."""
        for session in self.sessions.values():
            if session.intents & GUILDS and session.hears(guild.id):
                self._log(session, "GUILD_CREATE", self._guild_create(session, guild))

    def drop(self, *, shard: int | None = None) -> None:
        """Cut every socket, or one shard's, without a word; sessions stay and can be resumed."""
        for line in self._of(shard):
            self._detach(line)
            line.cut()

    def ask_reconnect(self) -> None:
        """Send op 7 to every client."""
        for line in self._lines:
            line.send({"op": 7, "d": None})

    def invalidate(self, *, shard: int | None = None) -> None:
        """Forget every session, or one shard's, and tell the clients that are there (op 9, not
        resumable).
        """
        for line in self._of(shard):
            if line.session is not None:
                self.sessions.pop(line.session.id, None)
            line.session = None
            line.send({"op": 9, "d": False})
        if shard is None:
            self.sessions.clear()

    def close_all(self, code: int) -> None:
        """Close every socket with `code`."""
        for line in self._of(None):
            line.close(code)

    def _of(self, shard: int | None) -> list[Line]:
        return [
            line
            for line in self._lines
            if shard is None or (line.session is not None and line.session.shard[0] == shard)
        ]

    # -- one client

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """Hold one socket from HELLO to its end."""
        ws = web.WebSocketResponse(compress=False, max_msg_size=1 << 20)
        await ws.prepare(request)
        line = Line(request, ws)
        self._lines.add(line)
        writer = asyncio.create_task(line.write())
        line.send({"op": 10, "d": {"heartbeat_interval": self.heartbeat_interval_ms}})
        try:
            async for message in ws:
                if message.type == WSMsgType.TEXT:
                    self._receive(line, json.loads(message.data))
        finally:
            writer.cancel()
            self._leave(line)
        return ws

    def _receive(self, line: Line, frame: Json) -> None:
        operation = self._operations.get(frame.get("op", -1))
        if operation is None:
            line.close(4001)
        elif line.session is None and frame["op"] not in (1, 2, 6):
            line.close(4003)
        else:
            operation(line, frame)

    def _heartbeat(self, line: Line, frame: Json) -> None:
        self.heartbeats.append(Heartbeat(time.monotonic(), frame["d"]))
        if self.acknowledges:
            line.send({"op": 11})

    def _identify(self, line: Line, frame: Json) -> None:
        asked = frame["d"]
        self.identifies.append(asked)
        refusal = self._refusal(line, asked)
        if refusal:
            line.close(refusal)
            return
        if self._too_soon():
            line.send({"op": 9, "d": False})
            return
        self.starts_left -= 1
        shard = tuple(asked.get("shard", (0, 1)))
        session = Session(secrets.token_hex(16), asked["intents"], shard, line=line)
        self.sessions[session.id] = session
        line.session = session
        self._log(session, "READY", self._ready(session))
        for guild in self._guilds(session):
            if session.intents & GUILDS:
                self._log(session, "GUILD_CREATE", self._guild_create(session, guild))

    def _refusal(self, line: Line, asked: Json) -> int:
        """The code to close with, or 0."""
        if line.session is not None:
            return 4005
        if asked["token"] != self._world.application.token:
            return 4004
        number, count = asked.get("shard", (0, 1))
        if not 0 <= number < count:
            return 4010
        mine = [one for one in self._world.guilds.values() if (one.id >> 22) % count == number]
        if len(mine) > self.shard_servers:
            return 4011
        flags = self._world.application.flags
        lacking = [i for i, f in NEEDED_FLAGS.items() if asked["intents"] & i and not flags & f]
        return 4014 if lacking else 0

    def _too_soon(self) -> bool:
        """Whether the last identification is so recent that this one is refused (op 9)."""
        now = time.monotonic()
        if now - self._identified_at < self.identify_gap_s:
            return True
        self._identified_at = now
        return False

    def _resume(self, line: Line, frame: Json) -> None:
        asked = frame["d"]
        self.resumes.append(asked)
        session = self.sessions.get(asked["session_id"] or "")
        if asked["token"] != self._world.application.token:
            line.close(4004)
        elif session is None:
            line.send({"op": 9, "d": False})
        elif asked["seq"] is None or asked["seq"] > len(session.log):
            line.close(4007)
        else:
            self._attach(line, session, missed=session.log[asked["seq"] :])

    def _attach(self, line: Line, session: Session, *, missed: list[Json]) -> None:
        if session.line is not None:
            session.line.close(4000)
            session.line.session = None
        session.line, line.session = line, session
        for frame in missed:
            line.send(frame)
        self._log(session, "RESUMED", {"_trace": []})

    def _request_members(self, line: Line, frame: Json) -> None:
        asked, session = frame["d"], line.session
        guild = self._world.guilds.get(int(asked["guild_id"]))
        if session is None or guild is None:
            return
        users = list(guild.members.values())
        if wanted := [int(i) for i in asked.get("user_ids", [])]:
            users = [user for user in users if user.id in wanted]
        elif query := asked.get("query", ""):
            users = [user for user in users if user.name.startswith(query)][: asked["limit"]]
        elif not session.intents & GUILD_MEMBERS:
            users = []
        chunk: Json = {
            "guild_id": str(guild.id),
            "members": [member_json(guild, user) for user in users],
            "chunk_index": 0,
            "chunk_count": 1,
            "not_found": [str(i) for i in wanted if i not in guild.members],
        }
        if asked.get("nonce"):
            chunk["nonce"] = asked["nonce"]
        self._log(session, "GUILD_MEMBERS_CHUNK", chunk)

    def _leave(self, line: Line) -> None:
        session = line.session
        if session is not None and line.ws.close_code in (1000, 1001):
            self.sessions.pop(session.id, None)
        self._detach(line)

    def _detach(self, line: Line) -> None:
        self._lines.discard(line)
        if line.session is not None and line.session.line is line:
            line.session.line = None

    # -- what is sent

    def _log(self, session: Session, event: str, data: Json) -> None:
        frame = {"op": 0, "t": event, "s": len(session.log) + 1, "d": data}
        session.log.append(frame)
        if session.line is not None:
            session.line.send(frame)

    def _guilds(self, session: Session) -> list[Guild]:
        guilds = self._world.guilds.values()
        return [guild for guild in guilds if guild.has_bot and session.hears(guild.id)]

    def _ready(self, session: Session) -> Json:
        application = self._world.application
        return ({} if self.without_shards else {"shard": list(session.shard)}) | {
            "v": 10,
            "user": user_json(self._world.bot) | {"verified": True, "mfa_enabled": False},
            "guilds": [{"id": str(one.id), "unavailable": True} for one in self._guilds(session)],
            "session_id": session.id,
            "resume_gateway_url": self.url,
            "application": {"id": str(application.id), "flags": application.flags},
        }

    def _guild_create(self, session: Session, guild: Guild) -> Json:
        everyone = list(guild.members.values())
        sent = everyone if session.intents & GUILD_PRESENCES else [self._world.bot]
        return guild_create_json(self._world, guild, members=sent)


def _guild_id(event: str, data: Json) -> int:
    """The server an event is of; 0 for direct messages."""
    return int(data["id"] if event == "GUILD_DELETE" else data.get("guild_id") or 0)
