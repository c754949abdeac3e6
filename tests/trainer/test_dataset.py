"""Which rows teach, as what, and how loudly."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.jobs import Example
from core.records import FeedbackRow
from tests.trainer.rows import feedback_row
from trainer.dataset import cap_factors, select_examples


def select(*rows: FeedbackRow, share: float = 1.0) -> tuple[list[Any], dict[str, int]]:
    selection = select_examples(rows, person_share=share)
    return selection.examples, selection.left_out


def of_type(examples: list[Example], kind: str) -> list[Any]:
    return [example for example in examples if example.type == kind]


def test_rows_without_consent_or_reviewed_out_never_train() -> None:
    """Consent and an admin's review go before everything."""
    examples, left_out = select(
        feedback_row(all_consented=False), feedback_row("down", reply="r2", dropped=True)
    )
    assert examples == []
    assert left_out == {"no consent": 1, "reviewed out": 1}


def test_a_cut_reply_is_marked_incomplete() -> None:
    """A reply ended by the length limit is learnt without its end mark."""
    (example,), _ = select(feedback_row("down", finish_reason="length"))
    assert (example.label, example.complete, example.weight) == (False, False, 1.0)


def test_a_correction_is_imitated_and_beats_the_original() -> None:
    """A correction gives a demonstration and a pair, the original as cut as it was."""
    examples, _ = select(feedback_row("correction", text="bad", fix="Good", finish_reason="length"))
    (pair,) = of_type(examples, "pair")
    assert of_type(examples, "demonstration")[0].completion == "Good"
    assert (pair.chosen, pair.rejected, pair.rejected_complete) == ("Good", "bad", False)


def test_asking_again_is_a_weak_dislike_unless_the_person_voted() -> None:
    """Regenerate weighs 0.3 beside a vote of 1, and nothing beside the same person's vote."""
    examples, left_out = select(
        feedback_row("regenerate", "ann"),
        feedback_row("up", "bob", reply="r2", prompt="Other"),
        feedback_row("up", "eve", reply="r3", prompt="Third"),
        feedback_row("regenerate", "eve", reply="r3", prompt="Third"),
    )
    assert [round(example.weight, 3) for example in examples] == [0.3, 1.0, 1.0]
    assert left_out == {"asked again, but voted": 1}


def test_two_liked_versions_are_no_pair() -> None:
    """Who likes both versions has not said that one is better."""
    examples, _ = select(
        feedback_row("up", reply="r1", text="old"),
        feedback_row("up", reply="r2", text="new", other_text="old", other_id="r1"),
    )
    assert [example.type for example in examples] == ["vote", "vote"]


def test_a_liked_second_reply_beats_the_first() -> None:
    """Again, then 👍: the pair comes from either row that knows of both replies."""
    by_vote, _ = select(feedback_row("up", text="new", other_text="old"))
    by_row, _ = select(
        feedback_row("regenerate", text="old", other_reply_id="r2"),
        feedback_row("up", reply="r2", text="new"),
    )
    for examples in (by_vote, by_row):
        (pair,) = of_type(examples, "pair")
        assert (pair.chosen, pair.rejected) == ("new", "old")


def test_agreement_merges_and_weighs_its_root() -> None:
    """Four who agree are one example that weighs 2, the bound, against 1 of a single vote."""
    rows = [feedback_row("up", person) for person in "abcd"]
    examples, _ = select(*rows, feedback_row("up", "e", reply="r2", prompt="Other"))
    assert [len(example.feedback_ids) for example in examples] == [4, 1]
    assert [example.weight for example in examples] == [1.0, 0.5]


def test_the_majority_wins_and_a_tie_is_left_out() -> None:
    """Two likes against one dislike leave a like; one against one leaves nothing."""
    examples, left_out = select(
        feedback_row("up", "a"), feedback_row("up", "b"), feedback_row("down", "c"),
        feedback_row("up", "a", reply="r2", prompt="P"),
        feedback_row("down", "b", reply="r2", prompt="P"),
    )  # fmt: skip
    assert [(example.label, len(example.feedback_ids)) for example in examples] == [(True, 2)]
    assert left_out == {"tie": 2, "outvoted": 1}


def test_a_changed_mind_counts_once() -> None:
    """Of one person's up and down on a reply the later stands."""
    examples, left_out = select(feedback_row("up", at=1), feedback_row("down", at=2))
    assert [example.label for example in examples] == [False]
    assert left_out == {"changed mind": 1}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (feedback_row(text="  \n"), "empty text"),
        (feedback_row(text="x" * 30_000), "too long"),
        (
            feedback_row("preference", text="same", other_text="same "),
            "the two replies are the same",
        ),
        (feedback_row("preference"), "the other reply is gone"),
        (feedback_row(prompt=" "), "no prompt"),
    ],
)
def test_useless_rows_are_left_out_and_counted(row: FeedbackRow, reason: str) -> None:
    """Nothing is dropped without a reason that can be shown."""
    assert select(row) == ([], {reason: 1})


def test_the_cap_follows_the_formula() -> None:
    """Totals 10, 4, 3, 3 under 0.4: U = 10, T = 10 / 0.6, so the loudest gets 0.4·T = 20/3."""
    factors = cap_factors({"a": 10.0, "b": 4.0, "c": 3.0, "d": 3.0}, 0.4)
    assert factors == {"a": pytest.approx(2 / 3), "b": 1.0, "c": 1.0, "d": 1.0}


def test_too_few_people_for_the_share_are_made_equal() -> None:
    """Two people under a share of 0.25 both get what the quieter has."""
    assert cap_factors({"a": 8.0, "b": 2.0}, 0.25) == {"a": 0.25, "b": 1.0}


@given(
    st.dictionaries(st.text(min_size=1), st.floats(0.01, 1000), min_size=1, max_size=12),
    st.floats(0.05, 1.0),
)
def test_nobody_holds_more_than_the_share(totals: dict[str, float], share: float) -> None:
    """Whatever the totals, the cap holds, or all are equal because they are too few."""
    factors = cap_factors(totals, share)
    held = {person: totals[person] * factor for person, factor in factors.items()}
    bound = max(share, 1 / len(held)) * sum(held.values())
    assert max(held.values()) <= bound * (1 + 1e-6)
    assert all(0 < factor <= 1 for factor in factors.values())


def test_a_busy_voter_is_scaled_down_in_the_examples() -> None:
    """Eight votes of one person and one each of three: each person ends with a quarter."""
    rows = [feedback_row("up", "busy", reply=f"b{i}", prompt=f"b{i}") for i in range(8)]
    rows += [feedback_row("down", p, reply=p, prompt=p) for p in "xyz"]
    examples, _ = select(*rows, share=0.25)
    busy = sum(example.weight for example in examples if example.person == "busy")
    assert busy == pytest.approx(1.0)
