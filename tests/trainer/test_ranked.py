"""Which of the base's replies become pairs."""

from __future__ import annotations

import numpy as np
import pytest

from core.jobs import ChatMessage
from trainer.ranked import (
    PER_PROMPT,
    Asked,
    Option,
    anchor_pairs,
    better_and_worse,
    length_z,
    likely,
    stuck_pairs,
    with_voted,
)

PROMPT = (ChatMessage(role="user", content=" HI"),)
OTHER = (ChatMessage(role="user", content="Bye"),)


def asked(*texts: str, complete: bool = True) -> Asked:
    return Asked(PROMPT, tuple(Option(text, complete) for text in texts))


def test_the_best_stands_against_the_worst() -> None:
    """Of one prompt the two furthest apart, of all prompts those that tell most."""
    three = asked("one two three", "four five six", "seven eight nine")
    rewards = [np.array([0.0, 2.0, -1.0]), np.array([0.1, 0.0, 0.05])]
    (pair,) = better_and_worse([three, three], rewards, most=1, any_length=False)
    assert (pair.chosen, pair.rejected) == ("four five six", "seven eight nine")
    assert pair.feedback_ids == []


def test_a_reply_that_is_likely_to_be_liked_comes_before_an_odd_one() -> None:
    """Between two usual replies and an odd one, and two of which one is liked, the liked one is
    learnt from, though its reward is less far from the other's.
    """
    odd, liked = asked("one two three", "four five six"), asked("ten two three", "ten five six")
    rewards = [np.array([-2.0, -6.0]), np.array([1.0, -1.5])]
    (pair,) = better_and_worse([odd, liked], rewards, most=1, any_length=False)
    assert (pair.chosen, pair.rejected) == ("ten two three", "ten five six")


def test_a_reply_that_was_voted_on_is_one_more_to_choose_from() -> None:
    """It stands beside the draws of its own prompt, however that is spelled, and of no other."""
    own, other = asked("one two three", "four five six"), Asked(OTHER, asked("a b c").options)
    said = {"user: hi": {Option("seven eight nine", True): 2.0}}
    options, rewards = with_voted([own, other], [np.array([0.0, -1.0]), np.array([0.5])], said)
    assert [len(one.options) for one in options] == [3, 1]
    assert [list(scores) for scores in rewards] == [[0.0, -1.0, 2.0], [0.5]]
    (pair,) = better_and_worse(options, rewards, most=1, any_length=False)
    assert (pair.chosen, pair.rejected) == ("seven eight nine", "four five six")


def test_how_likely_the_better_replies_are_liked() -> None:
    """σ of their rewards, on average, as often as each is learnt from; of none 0."""
    two, other = (
        asked("one two three", "four five six"),
        Asked(OTHER, asked("a b c", "d e f").options),
    )
    options, rewards = [two, other], [np.array([0.0, -9.0]), np.array([-1.0, 3**0.5])]
    pairs = better_and_worse(options, rewards, most=2, any_length=False)
    expected = (0.5 + 1 / (1 + np.exp(-(3**0.5)))) / 2
    assert likely(options, rewards, pairs) == pytest.approx(expected)
    assert likely(options, rewards, []) == 0


def test_repetition_turns_a_pair_round() -> None:
    """What says itself twice is the worse side, unless it is liked by more than that costs."""
    twice = asked("so it is and so it is no more at all", "so it is and then it was no more at all")
    for reward, place in ((1.6, 0), (0.8, 1)):
        rewards = [np.array([reward, 0.0])]
        (pair,) = better_and_worse([twice], rewards, most=9, any_length=False)
        assert pair.chosen == twice.options[place].text


def test_one_prompt_does_not_take_every_pair() -> None:
    """A liked reply stands against several others, but against so many only."""
    many = asked("ten two three", *(f"word{n} five six" for n in range(6)))
    rewards = [np.array([2.0, -1, -1.1, -1.2, -1.3, -1.4, -1.5]), np.array([0.2, 0.1])]
    two = asked("one two three", "four five six")
    pairs = better_and_worse([many, two], rewards, most=9, any_length=False)
    assert [pair.chosen for pair in pairs] == ["ten two three"] * PER_PROMPT + ["one two three"]
    assert {pair.rejected for pair in pairs[:-1]} == {f"word{n} five six" for n in (3, 4, 5)}
    pairs = better_and_worse([many, two], rewards, most=9, any_length=True)
    assert [pair.chosen for pair in pairs] == ["ten two three", "one two three"]


def test_length_is_not_learnt_by_chance() -> None:
    """Replies of unlike length, or of which one was cut, pair only if votes are about length."""
    unlike = asked("one two three", "one two three four five six seven")
    cut = Asked(PROMPT, (Option("one two three", True), Option("four five six", False)))
    rewards = [np.array([0.0, 1.0])]
    for one in (unlike, cut):
        assert better_and_worse([one], rewards, most=9, any_length=False) == []
        assert len(better_and_worse([one], rewards, most=9, any_length=True)) == 1


@pytest.mark.parametrize("text", ["no no no no no no no no", "hi", "", "🙂"])
def test_a_broken_reply_teaches_neither_side(text: str) -> None:
    """Repetition and replies of a word or two are left out."""
    one = asked("one two three four", text)
    assert better_and_worse([one], [np.array([1.0, 0.0])], most=9, any_length=True) == []


def test_who_repeats_himself_is_liked_less() -> None:
    """Of two replies of about the same reward the one that says nothing twice is the better."""
    twice = asked("so it is and so it is no more at all", "so it is and then it was no more at all")
    (pair,) = better_and_worse([twice], [np.array([0.1, 0.0])], most=9, any_length=False)
    assert pair.chosen == "so it is and then it was no more at all"


def test_to_be_stuck_is_worse_than_the_reply_it_starts_like() -> None:
    """One pair in eight is had again, with the better reply's first words over and over."""
    two = asked("I am so glad to hear it today", "seven eight nine ten eleven twelve")
    pairs = better_and_worse([two] * 16, [np.array([1.0, 0.0])] * 16, most=16, any_length=True)
    found = stuck_pairs(pairs, seed=0)
    assert len(found) == 2
    for pair in found:
        worse = pair.rejected.split()
        assert pair.chosen == "I am so glad to hear it today"
        assert len(worse) == len(pair.chosen.split())
        assert worse[:2] == ["I", "am"]
        assert worse.count("I") > 1
        assert not pair.rejected_complete
    assert stuck_pairs(pairs[:7], seed=0) == []


def test_what_the_base_says_first_is_held_on_to() -> None:
    """An anchor pairs the likeliest answer with a drawn one, unless they are the same."""
    first, other = Option("Paris.", True), Option("Rome?", True)
    (pair,) = anchor_pairs([PROMPT, PROMPT], [first, first], [other, first])
    assert (pair.chosen, pair.rejected) == ("Paris.", "Rome?")


def test_votes_about_length_are_told_from_others() -> None:
    """Where one of two lengths is always liked, z² of N votes is N - 1; of n pairs, n."""
    short, long = Option("a b c", True), Option("a b c d e f g h", True)
    about = [(short, True), (long, False)] * 20
    mixed = [(short, True), (long, True), (short, False), (long, False)] * 10
    assert length_z(about, []) == pytest.approx(6.24, abs=0.01)  # 39 ** 0.5
    assert length_z(mixed, []) == 0.0
    assert length_z([], [(short, long)] * 16) == 4.0
    assert length_z([], []) == 0.0
