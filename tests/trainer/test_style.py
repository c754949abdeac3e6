"""The plain counts of a reply."""

from __future__ import annotations

from math import isfinite, log1p

import pytest

from trainer.style import FEATURES, style_features


def features(prompt: str, text: str, *, complete: bool = True) -> dict[str, float]:
    found = style_features(prompt, text, complete=complete)
    return dict(zip(FEATURES, found.tolist(), strict=True))


def test_each_count_is_what_its_name_says() -> None:
    """Counted by hand: two lines, two sentences, one of them a question."""
    found = features("What is a Tiger?", "A tiger, I think.\n- Do you like 2?", complete=False)
    assert found["words"] == pytest.approx(log1p(8))
    assert found["ended by itself"] == 0.0
    assert found["sentences"] == pytest.approx(log1p(2))
    assert found["line breaks"] == pytest.approx(log1p(1))
    assert found["list items"] == pytest.approx(log1p(1))
    assert found["question marks"] == pytest.approx(log1p(1))
    assert found["commas"] == pytest.approx(log1p(1))
    assert found["digits"] == pytest.approx(log1p(1))
    assert (found["I and we"], found["you"]) == (1 / 8, 1 / 8)
    assert found["question's words taken up"] == pytest.approx(1 / 2)  # what, tiger


@pytest.mark.parametrize("text", ["", "   ", "🙂🙂", "...", "\x00"])
def test_a_reply_without_words_has_features_too(text: str) -> None:
    """Nothing is divided by zero."""
    assert all(map(isfinite, features("Hi", text).values()))
