"""The double of Discord, tried with the real client over real sockets."""

from __future__ import annotations

import asyncio
import urllib.request

import aiohttp
import discord
import pytest

from tests.bot.discord.small import INTENTS, Small, running, until
from tests.discord_double import Double, double_in_thread

MESSAGES = "/channels/{channel}/messages"
CONTENT_LIMITED = 1 << 19


async def test_the_client_logs_in_and_answers(double: Double) -> None:
    """discord.py becomes ready, sees the server whole, and its reply refers to what was said."""
    ann = await double.user("ann")
    guild = await double.guild("garden", members=[ann])
    channel = await double.text_channel(guild, "talk")
    async with running(Small(), double) as client:
        asked = await double.say(ann, channel, "ping", mention_bot=True, attachments=1)
        await until(lambda: len(double.messages(channel)) == 2)
        seen = client.get_guild(guild.id)
        assert seen is not None and seen.name == "garden" and seen.me is not None
        assert seen.get_channel(channel.id).permissions_for(seen.me).send_messages
        answer = double.messages(channel)[1]
        assert (answer.content, answer.reply_to) == ("pong", asked)
        fetched = await seen.get_channel(channel.id).fetch_message(asked.id)
        assert await fetched.attachments[0].read() == b"text of a file"


async def test_a_dropped_client_resumes_and_misses_nothing(double: Double) -> None:
    """Messages said while the socket was cut arrive after RESUMED, each once, in order."""
    ann = await double.user("ann")
    async with running(Small(), double) as client:
        await double.dm(ann, "one")
        await until(lambda: client.heard)
        double.drop()
        await double.dm(ann, "two")
        await double.dm(ann, "three")
        await asyncio.wait_for(client.resumed.wait(), 4)
        await double.dm(ann, "four")
        await until(lambda: len(client.heard) >= 4)
        double.gateway.ask_reconnect()
        await until(lambda: len(double.gateway.resumes) == 2)
        await double.dm(ann, "five")
        await until(lambda: len(client.heard) >= 5)
        assert client.heard == ["one", "two", "three", "four", "five"]
        assert len(double.gateway.identifies) == 1


async def test_an_invalid_session_is_identified_afresh(double: Double) -> None:
    """A client whose session is forgotten identifies again and goes on."""
    ann = await double.user("ann")
    async with running(Small(), double) as client:
        double.gateway.sessions.clear()
        double.drop()
        await until(lambda: len(double.gateway.identifies) == 2)
        await until(lambda: double.gateway.sessions)
        await double.dm(ann, "again")
        await until(lambda: client.heard == ["again"])


async def test_heartbeats_come_and_a_silent_gateway_is_left(double: Double) -> None:
    """The client beats at the interval it was told, and resumes when nothing acknowledges."""
    double.gateway.heartbeat_interval_ms = 50
    async with running(Small(heartbeat_timeout=0.2), double) as client:
        await until(lambda: len(double.heartbeats) >= 4)
        double.gateway.acknowledges = False
        await until(lambda: double.gateway.resumes)
        double.gateway.acknowledges = True
        await asyncio.wait_for(client.resumed.wait(), 4)


async def test_a_429_is_obeyed(double: Double) -> None:
    """A client over a limit waits as told; one that reads the headers earns no further 429."""
    ann = await double.user("ann")
    double.limit("POST", MESSAGES, limit=2, per_s=0.3)
    async with running(Small(), double) as client:
        user = await client.fetch_user(ann.id)
        place = await user.create_dm()
        double.fail_next("POST", MESSAGES, status=429, retry_after_s=0.05)
        for number in range(5):
            await place.send(str(number))
        said = [m.content for m in double.messages(double.world.dm_with(ann))]
        assert said == ["0", "1", "2", "3", "4"]
        assert double.invalid == 1


async def test_a_hidden_limit_answers_429_with_requests_remaining(double: Double) -> None:
    """A limit no header announces still lets every edit through in the end."""
    ann = await double.user("ann")
    message = f"{MESSAGES}/{{message}}"
    async with running(Small(), double) as client:
        sent = await (await client.fetch_user(ann.id)).send("0")
        double.limit("PATCH", message, limit=1, per_s=0.1, hidden=True)
        for number in range(1, 4):
            sent = await sent.edit(content=str(number))
        stored = double.messages(double.world.dm_with(ann))[0]
        assert [r.content for r in double.history_of(stored)] == ["0", "1", "2", "3"]
        assert double.invalid == 2


async def test_failures_reach_the_client_as_discord_sends_them(double: Double) -> None:
    """A 502 in HTML is retried; a lost answer leaves one message behind an enforced nonce."""
    ann = await double.user("ann")
    async with running(Small(), double) as client:
        user = await client.fetch_user(ann.id)
        double.fail_next("POST", MESSAGES, status=502)
        await user.send("after a 502", nonce=1)
        double.lose_next_answer("POST", MESSAGES)
        with pytest.raises(aiohttp.ClientError):
            await user.send("lost", nonce=2)
        again = await user.send("lost", nonce=2)
        said = double.messages(double.world.dm_with(ann))
        assert [m.content for m in said] == ["after a 502", "lost"]
        assert again.id == said[1].id
        assert [s.status for s in double.requests if s.method == "POST"][1:] == [502, 200, 0, 200]


async def test_refusals_have_discords_codes(double: Double) -> None:
    """Long, empty, unknown, foreign and forbidden each get the number that Discord gives."""
    ann = await double.user("ann")
    guild = await double.guild("garden", members=[ann])
    channel = await double.text_channel(guild, "talk")
    theirs = await double.say(ann, channel, "hello")
    async with running(Small(), double) as client:
        place = client.get_channel(channel.id)
        foreign = place.get_partial_message(theirs.id)
        for code, attempt in (
            (50035, lambda: place.send("x" * 2001)),
            (50006, lambda: place.send("")),
            (10008, lambda: place.fetch_message(1)),
            (50005, lambda: foreign.edit(content="mine")),
            (50035, lambda: place.send("hi", reference=place.get_partial_message(1))),
            (10007, lambda: place.guild.fetch_member(double.world.application.owner.id)),
        ):
            with pytest.raises(discord.HTTPException) as refused:
                await attempt()
            assert refused.value.code == code
        await double.deny(channel, 1 << 11)
        with pytest.raises(discord.Forbidden, match="50013"):
            await place.send("hi")
        await double.remove_bot_from(guild)
        with pytest.raises(discord.Forbidden, match="50001"):
            await place.send("hi")
        await until(lambda: client.get_guild(guild.id) is None)


async def test_content_is_hidden_without_the_intent(double: Double) -> None:
    """Talk among others is empty; mentions, replies that ping and direct messages are not."""
    ann, bea = await double.user("ann"), await double.user("bea")
    guild = await double.guild("garden", members=[ann, bea])
    channel = await double.text_channel(guild, "talk")
    async with running(Small(), double) as client:
        await double.say(ann, channel, "private")
        await double.say(ann, channel, "ping", mention_bot=True)
        await until(lambda: len(double.messages(channel)) == 3)
        pong = double.messages(channel)[2]
        await double.say(ann, channel, "thanks", reply_to=pong)
        await double.say(ann, channel, "unpinged", reply_to=pong, ping=False)
        await double.dm(bea, "direct")
        await until(lambda: len(client.heard) == 5)
        mention = f"<@{double.world.bot.id}> ping"
        assert client.heard == ["", mention, "thanks", "", "direct"]
        fetched = [m async for m in client.get_channel(channel.id).history(limit=10)]
        assert [m.content for m in reversed(fetched)] == ["", mention, "pong", "thanks", ""]


async def test_content_is_shown_with_the_intent(double: Double) -> None:
    """An application that holds the privileged intent reads all of it."""
    double.world.application.flags = CONTENT_LIMITED
    ann = await double.user("ann")
    channel = await double.text_channel(await double.guild("garden", members=[ann]), "talk")
    intents = discord.Intents(INTENTS.value | discord.Intents.message_content.flag)
    async with running(Small(intents=intents), double) as client:
        await double.say(ann, channel, "open")
        await until(lambda: client.heard == ["open"])


async def test_an_intent_not_granted_is_refused(double: Double) -> None:
    """Asking for content that the portal does not grant closes with 4014."""
    client = Small(intents=discord.Intents(INTENTS.value | discord.Intents.message_content.flag))
    with pytest.raises(discord.PrivilegedIntentsRequired):
        await client.start(double.token)
    await client.close()


async def test_a_wrong_token_is_refused(double: Double) -> None:
    """Logging in with another token fails at once."""
    client = Small()
    with pytest.raises(discord.LoginFailure):
        await client.start("wrong")
    await client.close()


async def test_members_are_told_of_and_listed_with_their_intent(double: Double) -> None:
    """With the members intent joins and leaves arrive, and a request for members is answered."""
    double.world.application.flags = 1 << 15
    ann, bea = await double.user("ann"), await double.user("bea")
    guild = await double.guild("garden", members=[ann])
    intents = discord.Intents(INTENTS.value | discord.Intents.members.flag)
    async with running(Small(intents=intents), double) as client:
        seen = client.get_guild(guild.id)
        assert {member.name for member in await seen.chunk()} == {"ann", "thumbtune"}
        await double.join(guild, bea)
        await until(lambda: seen.get_member(bea.id))
        await double.leave(guild, ann)
        await until(lambda: seen.get_member(ann.id) is None)


async def test_channels_come_and_go(double: Double) -> None:
    """A new server and its channel reach the client, and a deleted channel is unknown."""
    async with running(Small(), double) as client:
        channel = await double.text_channel(await double.guild("later"), "talk")
        await until(lambda: client.get_channel(channel.id))
        place = client.get_channel(channel.id)
        await double.delete_channel(channel)
        with pytest.raises(discord.NotFound, match="10003"):
            await place.send("hi")
        await until(lambda: client.get_channel(channel.id) is None)


async def test_the_global_limit_says_that_it_is_global(double: Double) -> None:
    """A client over the global limit waits as told and gets everything through."""
    ann = await double.user("ann")
    async with running(Small(), double) as client:
        user = await client.fetch_user(ann.id)
        double.limit_all(2, per_s=0.2)
        for number in range(4):
            await user.send(str(number))
        assert len(double.messages(double.world.dm_with(ann))) == 4
        assert double.invalid >= 1


async def test_reactions_threads_and_files(double: Double) -> None:
    """Reactions go both ways and are paged, a thread opens on a message, files keep their bytes."""
    people = [await double.user(f"p{number}") for number in range(3)]
    guild = await double.guild("garden", members=people)
    channel = await double.text_channel(guild, "talk")
    async with running(Small(), double) as client:
        raw: list[str] = []

        @client.event
        async def on_raw_reaction_add(event: discord.RawReactionActionEvent) -> None:
            raw.append(str(event.emoji))

        text = discord.File(__file__, filename="test.py")
        sent = await client.get_channel(channel.id).send("look", file=text)
        stored = double.messages(channel)[0]
        assert stored.attachments[0].data.startswith(b'"""The double')
        for person in people:
            await double.react(person, stored, "👍")
        await sent.add_reaction("👍")
        await until(lambda: len(raw) == 4)
        fetched = await sent.channel.fetch_message(sent.id)
        users = {user.name async for user in fetched.reactions[0].users(limit=2)}
        assert users == {"thumbtune", "p0"}
        await fetched.remove_reaction("👍", client.user)
        assert stored.reactions == {"👍": [person.id for person in people]}
        thread = await sent.create_thread(name="more")
        await thread.send("inside")
        assert [m.content for m in double.messages(double.world.channels[thread.id])] == ["inside"]
        assert [t.id for t in await thread.guild.active_threads()] == [sent.id]


def test_a_double_runs_in_a_thread() -> None:
    """From another thread the double is reached by `call`, and it answers on its urls."""
    with double_in_thread() as remote:
        guild = remote.call(remote.double.guild, "garden", members=[])
        asked = urllib.request.Request(  # noqa: S310 -- loopback
            f"{remote.api_url}/guilds/{guild.id}",
            headers={"Authorization": f"Bot {remote.double.token}"},
        )
        with urllib.request.urlopen(asked, timeout=5) as answer:  # noqa: S310 -- loopback
            assert b"garden" in answer.read()
        assert remote.call(lambda: remote.double.requests[0].status) == 200
