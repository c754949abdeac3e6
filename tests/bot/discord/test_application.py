"""Connecting to Discord: what was granted, faults in one sentence, and staying connected."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import discord
import pytest
import pytest_asyncio
from discord.backoff import ExponentialBackoff
from discord.gateway import DiscordWebSocket
from discord.http import Route
from pydantic import SecretStr

from bot.discord import serve
from bot.discord.application import invite_link, look, permissions, use_endpoints
from bot.discord.bot import owners_of, quiet
from bot.discord.serve import discord_face
from core.errors import ConfigError, ThumbtuneError
from core.settings import Settings
from core.shares import Group, ShardShare
from storage.database import Database
from tests.bot.discord.conftest import discord_settings
from tests.bot.discord.scripted import ScriptedEngine, scripted_world
from tests.bot.test_cli import ROOT, Shell
from tests.discord_double import TOKEN, Double, Remote, double_in_thread

CONTENT, MEMBERS = 1 << 19, 1 << 15


@pytest.fixture(autouse=True)
def endpoints_put_back() -> Iterator[None]:
    """The library's endpoints hold for the process: other tests get theirs back."""
    rest, gateway = Route.BASE, DiscordWebSocket.DEFAULT_GATEWAY
    yield
    Route.BASE, DiscordWebSocket.DEFAULT_GATEWAY = rest, gateway


@pytest_asyncio.fixture
async def double() -> AsyncIterator[Double]:
    """Discord on loopback; the application was granted both privileged intents."""
    async with Double(flags=CONTENT | MEMBERS) as running:
        yield running


def settings_for(double: Double, tmp_path: Path, *, token: str = TOKEN) -> Settings:
    """Settings that lead to the double."""
    found = discord_settings(
        tmp_path / "world", tmp_path, api_url=double.api_url, gateway_url=double.gateway_url
    )
    return found.model_copy(update={"discord_token": SecretStr(token)})


def with_gateway(settings: Settings, address: str) -> Settings:
    """The same settings with another gateway."""
    moved = settings.discord.model_copy(update={"gateway_url": address})
    return settings.model_copy(update={"discord": moved})


def test_the_invite_link_asks_for_exactly_what_is_needed() -> None:
    """Six permissions and the two scopes, nothing that moderates or manages."""
    asked = {name for name, wanted in permissions() if wanted}
    assert asked == {
        "read_messages",
        "send_messages",
        "send_messages_in_threads",
        "read_message_history",
        "embed_links",
        "attach_files",
    }
    link = invite_link(123)
    assert "client_id=123" in link
    assert f"permissions={permissions().value}" in link
    assert "applications.commands" in link


def test_endpoints_are_set_for_the_process(tmp_path: Path) -> None:
    """Another API server is used from then on; doing it twice changes nothing."""
    found = discord_settings(
        tmp_path, tmp_path, api_url="http://127.0.0.1:1/api/v10/", gateway_url="ws://127.0.0.1:1/"
    ).discord
    for _ in range(2):
        use_endpoints(found)
    assert Route("GET", "/users/@me").url == "http://127.0.0.1:1/api/v10/users/@me"
    assert str(DiscordWebSocket.DEFAULT_GATEWAY) == "ws://127.0.0.1:1/"


async def test_look_says_whose_token_it_is_and_what_was_granted(
    double: Double, tmp_path: Path
) -> None:
    """Name, id and both privileged intents, over REST alone."""
    found = await look(settings_for(double, tmp_path))
    assert (found.name, found.message_content, found.members) == ("thumbtune", True, True)
    double.world.application.flags = 0
    found = await look(settings_for(double, tmp_path))
    assert (found.message_content, found.members) == (False, False)


@pytest.mark.parametrize("token", ["wrong.token", "with\nline break", " ", "ungültig"])
async def test_a_wrong_token_is_one_sentence(double: Double, tmp_path: Path, token: str) -> None:
    """Whatever is wrong with it, the sentence names the key and the way out, never the token."""
    with pytest.raises(ConfigError, match="DISCORD_TOKEN: Discord does not accept it") as caught:
        await look(settings_for(double, tmp_path, token=token))
    assert token.strip() == "" or token not in str(caught.value)


async def test_no_token_says_how_to_get_one(double: Double, tmp_path: Path) -> None:
    """The sentence leads to the portal, the file and the guide."""
    bare = settings_for(double, tmp_path).model_copy(update={"discord_token": None})
    with pytest.raises(ConfigError, match=r"not set up: .*\.env.*docs/discord\.md"):
        await look(bare)


async def test_an_address_without_an_api_is_named(double: Double, tmp_path: Path) -> None:
    """A wrong path is a fault of the settings; a closed port is one of the network."""
    found = settings_for(double, tmp_path)
    there = found.discord.model_copy(update={"api_url": double.api_url + "/v9"})
    with pytest.raises(ConfigError, match=r"discord\.api_url: no Discord API at"):
        await look(found.model_copy(update={"discord": there}))
    nowhere = found.discord.model_copy(update={"api_url": "http://127.0.0.1:9/api/v10"})
    with pytest.raises(ThumbtuneError, match="cannot be reached"):
        await look(found.model_copy(update={"discord": nowhere}))


async def test_the_face_connects_with_what_was_granted(double: Double, tmp_path: Path) -> None:
    """The intents are those of the application, and leaving ends the connection."""
    double.world.add_guild("Town", members=[])
    async with scripted_world(settings_for(double, tmp_path), ScriptedEngine()) as world:
        async with discord_face(world, quiet) as bot:
            assert bot is not None
            assert bot.intents.message_content
            assert bot.intents.members
            assert [guild.name for guild in bot.guilds] == ["Town"]
        assert bot.is_closed()


async def test_no_token_means_no_face(double: Double, tmp_path: Path) -> None:
    """Without a token nothing is connected and nothing fails."""
    bare = settings_for(double, tmp_path).model_copy(update={"discord_token": None})
    async with (
        scripted_world(bare, ScriptedEngine()) as world,
        discord_face(world, quiet) as bot,
    ):
        assert bot is None
    assert double.requests == []


async def test_a_connection_that_ends_for_good_is_made_anew(
    double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An intent withdrawn while it runs: the operator is told, and the bot goes on without it."""
    monkeypatch.setattr(serve, "FIRST_PAUSE_S", 0.01)
    said: list[str] = []
    async with (
        scripted_world(settings_for(double, tmp_path), ScriptedEngine()) as world,
        discord_face(world, said.append) as bot,
    ):
        double.world.application.flags = 0
        double.gateway.close_all(4014)
        async with asyncio.timeout(30):
            while "Discord: connected again" not in said:
                await asyncio.sleep(0.05)
        assert bot is not None
        assert bot.is_closed()
    assert "Discord refused the privileged intents" in said[0]
    assert "trying again in" in said[0]


async def test_a_gateway_that_lets_nobody_in_is_one_sentence(
    double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start fails within a time and names the gateway; nothing is left running."""
    monkeypatch.setattr(serve, "READY_S", 0.5)
    monkeypatch.setattr(ExponentialBackoff, "delay", lambda _: 0.0)
    settings = with_gateway(settings_for(double, tmp_path), "ws://127.0.0.1:9/")
    async with scripted_world(settings, ScriptedEngine()) as world:
        with pytest.raises(ThumbtuneError, match=r"gateway ws://127\.0\.0\.1:9/ did not let"):
            await discord_face(world, quiet).__aenter__()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("discord")]


async def test_a_gateway_that_opens_late_is_found(double: Double, tmp_path: Path) -> None:
    """Handshakes refused before there ever was a socket do not end the start; discord.py tries
    again after five seconds.
    """
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    settings = with_gateway(settings_for(double, tmp_path), f"ws://127.0.0.1:{port}/")

    async def open_late() -> None:
        await asyncio.sleep(0.5)
        await double.open_port(port)

    async with scripted_world(settings, ScriptedEngine()) as world, asyncio.TaskGroup() as tasks:
        tasks.create_task(open_late())
        async with discord_face(world, quiet) as bot:
            assert bot is not None
            assert bot.shards_up.ready == {0}


@pytest.fixture
def remote() -> Iterator[Remote]:
    """Discord on loopback in a thread of its own, for other processes."""
    with double_in_thread(flags=CONTENT) as running:
        yield running


@pytest.fixture
def shell(tmp_path: Path, tiny_model: Path, remote: Remote) -> Shell:
    """A shell in an empty world whose settings lead to the double."""
    made = Shell(tmp_path, tiny_model)
    endpoints = f'[discord]\napi_url = "{remote.api_url}"\ngateway_url = "{remote.gateway_url}"'
    made.config.write_text(f"{made.config.read_text()}\n{endpoints}\n", encoding="utf-8")
    return made


def test_the_doctor_says_what_was_granted_and_how_to_invite(shell: Shell) -> None:
    """Name, both intents and the link in one line; without a token, how to get one."""
    said = _words(shell.run("doctor", code=0, DISCORD_TOKEN=TOKEN))
    assert "message content: granted; members: not granted" in said
    assert "training permission: not set; shards 0 of 1 (group 0 of 1), 1000 session" in said
    assert f"permissions={permissions().value}" in said.replace(" ", "")
    assert "not set up: make an application" in _words(shell.run("doctor", DISCORD_TOKEN=""))


def test_the_doctor_sees_a_database_of_another_group(shell: Shell, remote: Remote) -> None:
    """What a start would refuse is told before it."""
    with Database(shell.home / "world" / "thumbtune.db") as db:
        db.groups.claim(ShardShare(Group(1, 2), 2), actor="test")
    said = _words(shell.run("doctor", code=1, DISCORD_TOKEN=TOKEN))
    assert "holds the servers of group 1 of 2, but discord.group and discord.groups say" in said
    assert remote.double.gateway.identifies == []


def _words(text: str) -> str:
    """Return text on one line, as it was before the console wrapped it."""
    return " ".join(text.split())


def test_a_wrong_token_ends_up_with_the_code_of_wrong_settings(shell: Shell) -> None:
    """One sentence, exit code 4, no trace."""
    said = _words(shell.run("up", code=4, DISCORD_TOKEN="wrong.token"))
    assert "DISCORD_TOKEN: Discord does not accept it" in said
    assert "Traceback" not in said


def test_up_serves_discord_without_a_terminal_until_it_is_stopped(
    shell: Shell, remote: Remote
) -> None:
    """It says how it is connected, and a termination signal ends it in good order."""
    remote.call(remote.double.guild, "Town")
    place = ["--config", str(shell.config), "--data-dir", str(shell.home / "world")]
    with subprocess.Popen(
        [sys.executable, "-m", "bot.cli.app", "up", *place],
        cwd=ROOT,
        env={**os.environ, "DISCORD_TOKEN": TOKEN},
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        said = next(line for line in running.stdout if line.startswith("Discord:"))
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=60) == 0
    assert said.strip() == "Discord: connected as thumbtune to 1 server"


def test_of_a_team_only_those_who_may_change_the_bot_are_its_owners() -> None:
    """Somebody who was only invited, or may only look, commands no server."""
    members = [
        {"user": {"id": str(number)}, "role": role, "membership_state": state}
        for number, role, state in (
            (2, "admin", 2),
            (3, "developer", 2),
            (4, "read_only", 2),
            (5, "admin", 1),
        )
    ]
    for member in members:
        member["user"] |= {"username": "x", "discriminator": "0", "avatar": None}
    team = {"id": "9", "name": "T", "icon": None, "owner_user_id": "1", "members": members}
    application = {
        "id": "8",
        "name": "A",
        "description": "",
        "icon": None,
        "bot_public": True,
        "bot_require_code_grant": False,
        "verify_key": "",
        "owner": {"id": "1", "username": "x", "discriminator": "0", "avatar": None},
        "team": team,
    }
    client = discord.Client(intents=discord.Intents.none())
    info = discord.AppInfo(client._connection, application)  # type: ignore[arg-type]
    assert owners_of(info) == {1, 2, 3}
