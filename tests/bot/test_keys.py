"""Keys are made once, shown once and known by their hash."""

from __future__ import annotations

import pytest

from bot.keys import hash_key, make_key
from bot.world import World
from core.errors import InvalidInput


async def test_a_key_is_found_again_and_stands_nowhere(world: World) -> None:
    """The database file holds its hash, not the key."""
    made = await make_key(world.database, "web", role="admin", scope="shop", actor="test")
    found = await world.database.run(lambda db: db.keys.find(hash_key(made.secret)))
    assert found == made.key and (found.role, found.scope) == ("admin", "shop")
    files = world.settings.data_dir.glob("thumbtune.db*")
    assert not any(made.secret.encode() in file.read_bytes() for file in files)


@pytest.mark.parametrize("name", ["", "local", "Web", "a/b", "-x", "x" * 65])
async def test_a_name_that_could_be_mistaken_is_refused(world: World, name: str) -> None:
    """Only plain names, and not the one of whoever needs no key."""
    with pytest.raises(InvalidInput, match="expected 1 to 64 of"):
        await make_key(world.database, name, actor="test")
