"""Groups and shards: whose a server is, and what may become of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.shares import Group, ShardShare, group_of, whole_shards

IDS = st.integers(min_value=1, max_value=(1 << 63) - 1)
TOTALS = st.integers(min_value=1, max_value=12)


def test_the_formula_is_discords() -> None:
    """(guild_id >> 22) % shards, worked by hand; direct messages fall to shard 0."""
    assert group_of(7 << 22, 4) == 3
    assert group_of((7 << 22) + (1 << 22) - 1, 4) == 3
    assert group_of(None, 4) == 0


@given(guild_id=IDS, groups=TOTALS, times=TOTALS)
def test_a_servers_group_runs_its_shard_however_many_shards_there_are(
    guild_id: int, groups: int, times: int
) -> None:
    """More shards move no server: exactly the group that owns it runs the shard it is on."""
    shares = [ShardShare(Group(number, groups), groups * times) for number in range(groups)]
    runs_it = [one.group for one in shares if one.shard_of(guild_id) in one.ids]
    assert runs_it == [one.group for one in shares if one.group.owns(guild_id)]
    assert len(runs_it) == 1


@given(guild_id=IDS, total=TOTALS, times=TOTALS)
def test_a_group_that_splits_another_holds_servers_of_that_one_only(
    guild_id: int, total: int, times: int
) -> None:
    """What the narrower group owns, the wider one owned."""
    narrow = Group(group_of(guild_id, total * times), total * times)
    (wide,) = [Group(k, total) for k in range(total) if narrow.splits(Group(k, total))]
    assert narrow.owns(guild_id) and wide.owns(guild_id)


def test_groups_that_are_no_multiple_split_nothing() -> None:
    """Three groups hold servers of both of two."""
    assert not Group(0, 3).splits(Group(0, 2))
    assert not Group(1, 4).splits(Group(0, 2))
    assert Group(3, 4).splits(Group(1, 2))


@pytest.mark.parametrize(
    ("wanted", "groups", "shards"), [(0, 1, 1), (1, 1, 1), (1, 3, 3), (4, 2, 4), (5, 2, 6)]
)
def test_shards_are_dealt_out_evenly(wanted: int, groups: int, shards: int) -> None:
    """The recommendation is rounded up to a multiple of the groups."""
    assert whole_shards(wanted, groups) == shards
