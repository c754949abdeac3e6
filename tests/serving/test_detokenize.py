"""Streamed text: whole characters, exact in sum, nothing of a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from serving.detokenize import Detokenizer, StopFilter


def decode_bytes(tokens: Sequence[int]) -> str:
    """Decode as a byte tokenizer does: a token is a byte."""
    return bytes(tokens).decode("utf-8", errors="replace")


def decode_fallback(tokens: Sequence[int]) -> str:
    """Decode as byte fallback does: a run with any wrong byte becomes U+FFFD byte by byte."""
    try:
        return bytes(tokens).decode("utf-8")
    except UnicodeDecodeError:
        return "\ufffd" * len(tokens)


def pieces_of(text: str, decode: object = decode_bytes) -> list[str]:
    """Stream a text byte by byte."""
    detokenizer = Detokenizer(decode)  # type: ignore[arg-type]
    return [detokenizer.push(byte) for byte in text.encode()] + [detokenizer.flush()]


@given(st.text(max_size=30))
def test_pieces_join_to_the_text(text: str) -> None:
    """Any text, a byte a token, comes out whole and no piece holds half a character."""
    pieces = pieces_of(text.replace("\ufffd", "?"))
    assert "".join(pieces) == text.replace("\ufffd", "?")
    assert not any("\ufffd" in piece for piece in pieces)


def test_emoji_in_a_row_with_byte_fallback() -> None:
    """Two emoji whose bytes are decoded as one run come out one after the other."""
    pieces = [piece for piece in pieces_of("🙂👩", decode_fallback) if piece]
    assert pieces == ["🙂", "👩"]


@given(st.binary(max_size=40))
def test_garbage_never_stalls(raw: bytes) -> None:
    """Bytes that are no text come out as replacement characters, in sum what decoding gives."""
    detokenizer = Detokenizer(decode_bytes)
    pieces = [detokenizer.push(byte) for byte in raw] + [detokenizer.flush()]
    assert "".join(pieces) == decode_bytes(raw)


def test_garbage_is_not_withheld_for_ever() -> None:
    """A long run of stray bytes is given out while it goes on."""
    detokenizer = Detokenizer(decode_bytes)
    assert len("".join(detokenizer.push(0x80) for _ in range(40))) >= 30


def test_a_real_tokenizer_streams_exactly(tiny_model: Path) -> None:
    """With a byte-level tokenizer of transformers the pieces join to its own decoding."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ids = tokenizer("naïve 🙂 日本\n  x", add_special_tokens=False)["input_ids"]
    detokenizer = Detokenizer(lambda tokens: tokenizer.decode(list(tokens)))
    pieces = [detokenizer.push(token) for token in ids] + [detokenizer.flush()]
    assert "".join(pieces) == tokenizer.decode(ids) == "naïve 🙂 日本\n  x"


@pytest.mark.parametrize("size", [1, 2, 3, 50])
def test_stop_string_across_pieces(size: int) -> None:
    """A stop string is found wherever the pieces are cut, and nothing of it is shown."""
    text = "one <e two <end> three"
    stops = StopFilter(("<end>", "never"))
    shown = "".join(stops.push(text[i : i + size]) for i in range(0, len(text), size))
    assert shown + stops.flush() == "one <e two " and stops.stopped


def test_earliest_stop_string_wins() -> None:
    """Of two stop strings in one piece the earlier ends the text."""
    stops = StopFilter(("b", "a"))
    assert stops.push("xxabxx") == "xx"
    assert stops.push("more") == ""


def test_withheld_text_comes_at_the_end() -> None:
    """What looked like the start of a stop string is shown when the reply ends."""
    stops = StopFilter(("<end>", ""))
    assert stops.push("so <en") == "so "
    assert stops.flush() == "<en" and not stops.stopped
