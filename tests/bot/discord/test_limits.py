"""The rate limit: a sliding window, told once, in bounded memory."""

from __future__ import annotations

import pytest

from bot.discord import limits
from bot.discord.limits import RateLimit
from core.errors import InvalidInput


class Clock:
    """A clock set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_window_slides() -> None:
    """Two in ten seconds: the third waits for the first to leave, not for a fixed border."""
    clock = Clock()
    limit = RateLimit(2, 10.0, clock)
    assert limit.take("ada") == 0.0
    clock.now = 4.0
    assert [limit.take("ada"), limit.take("ada")] == [0.0, 6.0]
    clock.now = 10.0
    assert [limit.take("ada"), limit.take("ada")] == [0.0, 4.0]


def test_a_refusal_does_not_lengthen_the_wait() -> None:
    """To ask a hundred times too soon costs nothing."""
    clock = Clock()
    limit = RateLimit(1, 10.0, clock)
    assert {limit.take("ada") for _ in range(100)} == {0.0, 10.0}
    clock.now = 10.0
    assert limit.take("ada") == 0.0


def test_keys_do_not_share_a_window() -> None:
    """One person's questions never refuse another's."""
    limit = RateLimit(1, 10.0, Clock())
    assert [limit.take("ada"), limit.take("bob")] == [0.0, 0.0]


def test_a_person_is_told_once_in_a_window() -> None:
    """The first refusal speaks, the others are silent, the next window speaks again."""
    clock = Clock()
    limit = RateLimit(1, 10.0, clock)
    assert [limit.first_refusal("ada") for _ in range(3)] == [True, False, False]
    assert limit.first_refusal("bob")
    clock.now = 10.0
    assert limit.first_refusal("ada")


def test_memory_is_bounded_and_the_longest_idle_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of keys drops old ones and keeps whoever was just seen."""
    monkeypatch.setattr(limits, "KEYS_KEPT", 3)
    limit = RateLimit(1, 10.0, Clock())
    for key in ("ada", "bob", "cyd", "ada", "dan", "eve"):
        limit.take(key)
    assert len(limit) == 3
    assert limit.take("ada") > 0.0


@pytest.mark.parametrize(("limit", "per_s"), [(0, 1.0), (1, 0.0)])
def test_a_limit_that_cannot_be_kept_is_refused(limit: int, per_s: float) -> None:
    """The message says what would do."""
    with pytest.raises(InvalidInput, match="at least 1 in more than 0 s"):
        RateLimit(limit, per_s)
