"""Whose servers a database holds: claimed, refused, split; never dealt anew in silence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.discord.lock import only_server
from bot.discord.places import Spot, server_scope
from bot.discord.servers import claim, keep_group, known_servers, stored_servers, strangers
from core.errors import ConfigError, InvalidInput
from core.shares import Group, ShardShare
from storage.database import Database
from tests.bot.test_cli import Shell

EVEN, ODD = 4 << 22, 5 << 22
WHOLE = ShardShare(Group(0, 1), 2)
FIRST, SECOND = ShardShare(Group(0, 2), 2), ShardShare(Group(1, 2), 2)


def talk(db: Database, guild_id: int | None) -> None:
    """Hold a conversation on a server, or in direct messages."""
    spot = Spot(guild_id, 7)
    scope = server_scope(guild_id)
    db.scopes.ensure(scope)
    db.conversations.open(scope, platform_key=spot.conversation_key(8))


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    """A database with two servers, one of which only has settings and a name, and direct talk."""
    with Database(tmp_path / "thumbtune.db") as opened:
        talk(opened, EVEN)
        talk(opened, None)
        opened.places.put(f"discord/{ODD}", {"name": "Odd Town"}, actor="test")
        opened.places.put(f"discord/{ODD}/7", {"listen": "all"}, actor="test")
        yield opened


def test_every_server_of_which_anything_is_kept_is_known(db: Database) -> None:
    """By its settings or by a conversation; direct messages come last."""
    assert known_servers(db) == {EVEN, ODD, None}
    assert [(one.guild_id, one.name, one.conversations) for one in stored_servers(db)] == [
        (EVEN, "", 1),
        (ODD, "Odd Town", 0),
        (None, "direct messages", 1),
    ]


def test_a_claim_holds_over_restarts_and_more_shards(db: Database) -> None:
    """More shards move no server, so they change nothing but the note of them."""
    claim(db, WHOLE)
    claim(db, ShardShare(Group(0, 1), 16))
    assert db.groups.claimed() == ShardShare(Group(0, 1), 16)


def test_another_group_is_refused_with_the_way_to_split(db: Database) -> None:
    """What it is, what was asked, what to do; nothing is claimed and nothing removed."""
    claim(db, WHOLE)
    with pytest.raises(
        ConfigError, match=r"holds the servers of group 0 of 1, but .* group 1 of 2"
    ):
        claim(db, SECOND)
    with pytest.raises(ConfigError, match=r"thumbtune servers keep --group 1 --groups 2"):
        claim(db, SECOND)
    assert db.groups.claimed() == WHOLE
    assert known_servers(db) == {EVEN, ODD, None}


def test_groups_cannot_be_joined_by_their_settings(db: Database) -> None:
    """Back to fewer groups is refused: the other groups' servers lie elsewhere."""
    keep_group(db, Group(0, 2), actor="test")
    with pytest.raises(ConfigError, match=r"set discord\.group and discord\.groups back"):
        claim(db, WHOLE)
    with pytest.raises(ConfigError, match="name this group's own data directory"):
        claim(db, SECOND)


def test_a_database_from_before_groups_is_not_divided_by_a_setting(db: Database) -> None:
    """It was never claimed, but it holds servers of the other group."""
    with pytest.raises(ConfigError, match="holds 2 servers that are not of group 1 of 2"):
        claim(db, SECOND)
    assert db.groups.claimed() is None


def test_an_empty_database_is_anybodys(tmp_path: Path) -> None:
    """A second group begins with a data directory of its own."""
    with Database(tmp_path / "new.db") as new:
        claim(new, SECOND)
        assert new.groups.claimed() == SECOND


def test_a_split_loses_and_doubles_no_server(db: Database, tmp_path: Path) -> None:
    """Two copies, each made one group's: every server is in exactly one of them."""
    claim(db, WHOLE)
    db.backup(tmp_path / "copy.db")
    with Database(tmp_path / "copy.db") as other:
        removed = keep_group(other, Group(1, 2), actor="test")
        assert {one.guild_id for one in removed} == {EVEN, None}
        assert known_servers(other) == {ODD}
        assert other.places.get(f"discord/{ODD}/7") == {"listen": "all"}
        claim(other, SECOND)
    assert {one.guild_id for one in keep_group(db, Group(0, 2), actor="test")} == {ODD}
    assert known_servers(db) == {EVEN, None}
    claim(db, FIRST)
    assert keep_group(db, Group(0, 2), actor="test") == []


def test_a_split_is_never_a_dealing_anew(db: Database) -> None:
    """From two groups to three, servers would have to come from both: refused, nothing removed."""
    keep_group(db, Group(0, 2), actor="test")
    with pytest.raises(InvalidInput, match="name a multiple of 2 groups"):
        keep_group(db, Group(0, 3), actor="test")
    assert strangers(db, Group(0, 2)) == []
    assert known_servers(db) == {EVEN, None}


def test_only_one_process_serves_a_data_directory(tmp_path: Path) -> None:
    """A second is refused at once; after the first has gone there is room again."""
    refused = pytest.raises(ConfigError, match="another process serves Discord")
    with only_server(tmp_path), refused, only_server(tmp_path):
        pass
    with only_server(tmp_path):
        pass


def test_servers_are_listed_and_kept_from_the_command_line(
    tmp_path: Path, tiny_model: Path
) -> None:
    """What would be, what is removed after a backup, and a refusal in plain words."""
    shell = Shell(tmp_path, tiny_model)
    with Database(tmp_path / "world" / "thumbtune.db") as db:
        for guild_id in (EVEN, ODD):
            talk(db, guild_id)
    listed = shell.run("servers", "list", "--groups", "2", "--json")
    assert [(one["id"], one["group"]) for one in listed["servers"]] == [
        (str(EVEN), 0),
        (str(ODD), 1),
    ]
    kept = shell.run("servers", "keep", "--group", "1", "--groups", "2", "--yes", "--json")
    assert [one["guild_id"] for one in kept["removed"]] == [EVEN]
    with Database(Path(kept["backup"])) as before:
        assert known_servers(before) == {EVEN, ODD}
    assert str(ODD) in shell.run("servers", "list")
    said = shell.run("servers", "keep", "--group", "0", "--groups", "2", "--yes", code=1)
    assert "groups are split, never joined" in " ".join(said.split())
    assert len(list((tmp_path / "world" / "backups").iterdir())) == 1
    assert "counted from 0" in shell.run("servers", "keep", "--group", "2", "--groups", "2", code=1)
