"""What is held out, and that nothing leaks."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from core.jobs import VoteExample
from tests.trainer.rows import vote
from trainer.split import prompt_key, split_examples

rows = st.lists(
    st.tuples(st.booleans(), st.sampled_from("abcdefg"), st.integers(0, 25)),
    min_size=2,
    max_size=60,
)


def votes(drawn: list[tuple[bool, str, int]]) -> list[VoteExample]:
    return [
        vote(label, person=person, prompt=f"Prompt {number}", at=at, completion=f"text {at}")
        for at, (label, person, number) in enumerate(drawn)
    ]


@given(rows, st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_no_prompt_is_on_both_sides_and_nothing_is_lost(
    drawn: list[tuple[bool, str, int]], seed: int
) -> None:
    """Whatever the data, the two sides are a partition by prompt."""
    examples = votes(drawn)
    split = split_examples(examples, held_out_share=0.25, seed=seed)
    assert sorted(e.at for e in [*split.train, *split.held_out]) == [e.at for e in examples]
    assert not {prompt_key(e) for e in split.train} & {prompt_key(e) for e in split.held_out}
    assert split == split_examples(examples, held_out_share=0.25, seed=seed)


def test_both_labels_are_held_out_and_whole_people_are() -> None:
    """Of 120 votes by 10 people, 12 of them liked, about a quarter is held out, with its people."""
    examples = votes([(i % 10 == 0, "abcdefghij"[i * 7 % 10], 1000 + i) for i in range(120)])
    split = split_examples(examples, held_out_share=0.25, seed=1)
    labels = [example.label for example in split.held_out]  # type: ignore[union-attr]
    assert 26 <= len(labels) <= 34
    assert set(labels) == {True, False}
    assert {e.person for e in split.held_out} - {e.person for e in split.train}
    assert "people" in split.why


def test_a_single_like_stays_in_training() -> None:
    """One liked reply cannot be on both sides; training needs it more."""
    split = split_examples(
        votes([(i == 3, "ab"[i % 2], 100 + i) for i in range(20)]), held_out_share=0.25, seed=0
    )
    assert any(example.label for example in split.train)  # type: ignore[union-attr]
    assert len(split.held_out) == 5


def test_case_spacing_and_system_message_do_not_hide_a_repeated_prompt() -> None:
    """The same words are the same prompt."""
    assert prompt_key(vote(True, prompt="Hello  There")) == prompt_key(
        vote(True, prompt="hello there")
    )
