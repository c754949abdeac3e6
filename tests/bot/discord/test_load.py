"""300 people in 30 channels write and vote for a minute, over real sockets with real rate limits.

The bot runs in a process of its own on an engine that streams without a model, as it would beside a
remote engine: what is measured is the bot. The double and the people run here.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from asyncio.subprocess import PIPE
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from core.settings import Settings
from storage.database import Database
from tests.discord_double import Double
from tests.discord_double.drafts import leaves
from tests.discord_double.records import Channel, Message, User

PEOPLE, CHANNELS, SECONDS = 300, 30, 60.0
PAUSE_S = 15.0
"""Mean pause of a person between two messages: 20 messages a second in all."""
STALL_MS = 100.0
GROWTH_MB = 12.0


@dataclass
class Seen:
    """What the people saw, and how they voted in the end."""

    asked: int = 0
    answered: int = 0
    votes: dict[tuple[str, str], str] = field(default_factory=dict)
    acknowledged_s: list[float] = field(default_factory=list)
    public: int = 0


async def test_a_crowd_is_answered_and_every_vote_is_stored_once(tmp_path: Path) -> None:
    """Nobody goes unanswered, each vote is stored once, the loop never stalls, memory is flat."""
    async with Double(heartbeat_interval_ms=2000) as double:
        double.limit("POST", "/channels/{channel}/messages", limit=5, per_s=5.0)
        double.limit("PATCH", "/channels/{channel}/messages/{message}", limit=5, per_s=5.0)
        people = [await double.user(f"person{number}") for number in range(PEOPLE)]
        guild = await double.guild("Crowd", members=people)
        channels = [await double.text_channel(guild, f"room{number}") for number in range(CHANNELS)]
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.bot.discord.bot_child",
            str(tmp_path),
            double.api_url,
            double.gateway_url,
            "25",
            stdin=PIPE,
            stdout=PIPE,
        )
        assert child.stdout is not None
        await child.stdout.readline()
        seen = Seen()
        end = asyncio.get_running_loop().time() + SECONDS
        await asyncio.gather(
            *(
                live(double, person, channels[number % CHANNELS], seen, end, number)
                for number, person in enumerate(people)
            )
        )
        out, _ = await child.communicate(b"stop\n")
    figures = json.loads(out.splitlines()[-1])
    report(seen, figures, double)
    assert seen.asked > PEOPLE
    assert seen.answered == seen.asked
    assert stored_votes(tmp_path) == seen.votes
    assert max(seen.acknowledged_s) < 1.0
    assert seen.public == 0
    assert double.invalid <= len(double.requests) / 1000  # one may cross a window's border
    assert figures["stall_max_ms"] < STALL_MS
    assert heartbeat_late_s(double) < 0.5
    assert figures["rss_end_mb"] - figures["rss_first_third_mb"] < GROWTH_MB
    assert not figures["torch"]


async def live(
    double: Double, person: User, channel: Channel, seen: Seen, end: float, seed: int
) -> None:
    """Ask, wait for the answer, vote, sometimes change the vote, and pause; until the end."""
    loop, dice = asyncio.get_running_loop(), random.Random(seed)
    await asyncio.sleep(dice.random() * PAUSE_S)
    while loop.time() < end:
        asked = await double.say(person, channel, f"question {dice.random()}", mention_bot=True)
        seen.asked += 1
        answer = await answer_to(double, channel, asked)
        if answer is None:
            return
        seen.answered += 1
        for _ in range(dice.choice((1, 1, 1, 2))):
            await vote(double, person, answer, seen, dice)
        pause_s = dice.expovariate(1 / PAUSE_S)
        await asyncio.sleep(max(0.0, min(pause_s, end - loop.time())))


async def answer_to(double: Double, channel: Channel, asked: Message) -> Message | None:
    """Return the whole answer to a message, or None if it does not come."""
    for _ in range(1200):
        for message in double.messages(channel)[-40:]:
            if message.reply_to is asked and any(
                str(leaf.get("custom_id", "")).startswith("tt:up:")
                for leaf in leaves(message.components)
            ):
                return message
        await asyncio.sleep(0.05)
    return None


async def vote(
    double: Double, person: User, answer: Message, seen: Seen, dice: random.Random
) -> None:
    """Vote by a button or a reaction."""
    kind = dice.choice(("up", "down"))
    ids = [str(leaf.get("custom_id", "")) for leaf in leaves(answer.components)]
    button = next(one for one in ids if one.startswith(f"tt:{kind}:"))
    reply_id = button.rsplit(":", 1)[-1]
    pressed = await double.press(person, answer, button)
    await pressed.until_acknowledged()
    seen.acknowledged_s.append(pressed.acknowledged_after_s)
    seen.votes[reply_id, str(person.id)] = kind
    await pressed
    seen.public += not pressed.response.ephemeral


def stored_votes(data_dir: Path) -> dict[tuple[str, str], str]:
    """Return the votes of the database; a vote stored twice would fail its unique index."""
    with Database(data_dir / Settings().storage.file) as database:
        rows = database._connection.all(
            """SELECT f.reply_id, p.platform_id, f.kind FROM feedback f
            JOIN people p ON p.id = f.person_id"""
        )
    return {(row["reply_id"], row["platform_id"]): row["kind"] for row in rows}


def heartbeat_late_s(double: Double) -> float:
    """Return by how much the latest heartbeat missed its interval.

    Seen from the gateway: discord.py's own `latency` is an interval too long where the answer comes
    back before its thread has noted the time of sending, as on loopback.
    """
    times = [beat.at for beat in double.heartbeats]
    interval_s = double.gateway.heartbeat_interval_ms / 1000
    return max(after - before for before, after in pairwise(times)) - interval_s


def report(seen: Seen, figures: dict[str, Any], double: Double) -> None:
    """Print the figures; `pytest -s` shows them."""
    late = sorted(seen.acknowledged_s)
    print(
        f"\n{seen.asked} asked, {seen.answered} answered, {len(late)} votes cast, "
        f"acknowledged within {1000 * late[len(late) // 2]:.0f} ms (median), "
        f"{1000 * late[-1]:.0f} ms (longest)\n"
        f"loop stalls: p99 {figures['stall_p99_ms']:.1f} ms, "
        f"longest {figures['stall_max_ms']:.1f} ms; "
        f"a heartbeat late by {1000 * heartbeat_late_s(double):.0f} ms at most\n"
        f"memory {figures['rss_first_third_mb']:.1f} MB after a third, "
        f"{figures['rss_end_mb']:.1f} MB at the end; "
        f"{len(double.requests)} requests, {double.invalid} refused"
    )
