"""The learning benchmark's communities: what they say is what their arm promises."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.learning.arms import ARMS, LOUD_SHARE, PLANTED_VOTES, World
from benchmarks.learning.community import Signal, feedback_rows, make_members
from benchmarks.learning.measure import mean_interval
from benchmarks.learning.pool import BaseReply
from benchmarks.learning.tastes import TASTES
from trainer.dataset import select_examples
from trainer.suspicion import DICTATED

TASTE = TASTES["asks"]
PROMPTS = [f"What is thing number {n} for?" for n in range(1400)]


def world() -> World:
    """A fifth of the replies asks something back."""
    texts = ("How are you today?", "It is for you.", "Nothing.", "I do not know.", "Ask me later.")
    return World(
        PROMPTS,
        {
            (prompt, draw): BaseReply(prompt, draw, texts[(n + draw) % 5], complete=True)
            for n, prompt in enumerate(PROMPTS)
            for draw in (0, 1)
        },
    )


def wrong(signals: list[Signal]) -> float:
    """Return the share of thumbs that contradict the taste."""
    voted = [s for s in signals if s.kind in ("up", "down")]
    likes = [TASTE.likes(s.reply.prompt, s.reply.text, s.reply.complete) for s in voted]
    return sum((s.kind == "up") != like for s, like in zip(voted, likes, strict=True)) / len(voted)


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_gives_what_training_takes(arm: str) -> None:
    """As many signals as its name says, the same for the same seed, others for another."""
    signals = ARMS[arm](TASTE, world(), 0)
    assert len(signals) == int(arm.split("-")[1])
    assert signals == ARMS[arm](TASTE, world(), 0)
    assert signals != ARMS[arm](TASTE, world(), 1)
    assert select_examples(feedback_rows(signals), person_share=0.25).examples


def test_noise_is_what_the_arm_says() -> None:
    """People differ and average the noise; three standard errors of 500 votes are 0.06."""
    members = make_members(0, 0.1)
    assert sum(member.noise * member.activity for member in members) == pytest.approx(0.1)
    assert wrong(ARMS["votes-500-noisy"](TASTE, world(), 0)) == pytest.approx(0.3, abs=0.06)
    assert wrong(ARMS["votes-240-clean"](TASTE, world(), 0)) == 0.0


def test_one_person_votes_against_everybody() -> None:
    """The loud one casts two fifths of the votes, every one of them wrong."""
    signals = ARMS["loud-240"](TASTE, world(), 0)
    loud = [signal for signal in signals if signal.member == "p_loud"]
    assert len(loud) == round(LOUD_SHARE * 240)
    assert wrong(loud) == 1.0


def test_a_planted_phrase_never_trains() -> None:
    """Every vote of the attack is set aside and counted."""
    rows = feedback_rows(ARMS["planted-240"](TASTE, world(), 0))
    assert select_examples(rows, person_share=0.25).left_out[DICTATED] == PLANTED_VOTES


def test_shuffling_deals_out_the_same_thumbs() -> None:
    """The counts stay, so nothing but the order is lost."""
    shuffled, votes = (ARMS[arm](TASTE, world(), 0) for arm in ("shuffled-240", "votes-240"))
    assert Counter(s.kind for s in shuffled) == Counter(s.kind for s in votes)
    assert [s.kind for s in shuffled] != [s.kind for s in votes]


def test_an_interval_holds_its_mean() -> None:
    """Half liked of two hundred: a standard error of 0.035 either way."""
    low, high = mean_interval([0.0, 1.0] * 100)
    assert (low, high) == (pytest.approx(0.43, abs=0.02), pytest.approx(0.57, abs=0.02))
