"""The simulated community: prompts kept apart, a taste anyone can check, an interval by hand."""

from __future__ import annotations

import random

import pytest

from bot.demo.community import (
    BRIEF,
    MAX_WORDS,
    Member,
    likes_brief,
    make_members,
    split_prompts,
    votes_up,
)
from bot.demo.loop import Answer, difference_interval, rate


@pytest.mark.parametrize("seed", range(5))
def test_training_and_measuring_never_share_a_prompt(seed: int) -> None:
    """The lists are disjoint, complete and without repeats, whatever their case and spacing."""
    train, unseen = split_prompts(seed, 240, 80)
    plain = [" ".join(prompt.lower().split()) for prompt in train + unseen]
    assert (len(train), len(unseen), len(set(plain))) == (240, 80, 320)


def test_too_many_prompts_are_refused() -> None:
    """The list ends somewhere, and the error says where."""
    with pytest.raises(ValueError, match="asked for"):
        split_prompts(0, 5000, 80)


@pytest.mark.parametrize(
    ("text", "complete", "liked"),
    [
        ("Yes.", True, True),
        ("Yes", False, False),
        ("", True, False),
        ("word " * MAX_WORDS, True, True),
        ("word " * (MAX_WORDS + 1), True, False),
    ],
)
def test_the_taste_is_the_stated_one(text: str, complete: bool, liked: bool) -> None:
    """Complete and between 1 and MAX_WORDS words."""
    assert likes_brief(text, complete) is liked


def test_noise_turns_the_vote_round() -> None:
    """A person who always errs votes against the taste."""
    wrong = Member("X", 1.0, 1.0)
    assert votes_up(BRIEF, wrong, "Yes.", True, random.Random(0)) is False


def test_activity_adds_up_and_is_uneven() -> None:
    """A few people cast most of the votes; the shares sum to one."""
    members = make_members(seed=1)
    assert sum(member.activity for member in members) == pytest.approx(1.0)
    assert members[0].activity > 3 * members[-1].activity
    assert len({member.name for member in members}) == len(members)


def test_the_interval_of_a_sure_difference_is_a_point() -> None:
    """All worse before, all liked after: the difference is 1 in every resample."""
    before = [Answer("", False, False)] * 10
    after = [Answer("x", True, True)] * 10
    assert difference_interval(before, after, seed=0) == (1.0, 1.0)
    assert (rate(before), rate(after)) == (0.0, 1.0)


def test_the_interval_of_no_difference_holds_zero() -> None:
    """As many gained as lost: zero lies inside."""
    before = [Answer("", True, index < 10) for index in range(20)]
    after = [Answer("", True, index >= 10) for index in range(20)]
    low, high = difference_interval(before, after, seed=0)
    assert low < 0 < high
