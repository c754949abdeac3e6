"""Prompts that fit: what goes, what stays, what is counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from core.errors import InvalidInput
from core.generation import Message
from serving.prompt import fit_prompt

SYSTEM = Message("system", "be kind")
CHAT = [Message("user" if i % 2 == 0 else "assistant", f"number {i} " + "x" * 20) for i in range(7)]


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    """The tiny byte tokenizer: about a token a character."""
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(tiny_model)
    return loaded


def test_a_chat_that_fits_is_the_templates_own(tokenizer: PreTrainedTokenizerBase) -> None:
    """Nothing is dropped and the tokens are those of the chat template."""
    prompt = fit_prompt(tokenizer, [SYSTEM, *CHAT], 2000)
    expected = tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in [SYSTEM, *CHAT]],
        add_generation_prompt=True, return_dict=True,
    )["input_ids"]  # fmt: skip
    assert list(prompt.token_ids) == expected
    assert (prompt.dropped_messages, prompt.cut_tokens) == (0, 0)


@pytest.mark.parametrize("limit", [90, 120, 200, 260])
def test_oldest_go_system_and_last_stay(tokenizer: PreTrainedTokenizerBase, limit: int) -> None:
    """The rest starts with a user's message, keeps the system's and the last, and fits."""
    prompt = fit_prompt(tokenizer, [SYSTEM, *CHAT], limit)
    text = tokenizer.decode(prompt.token_ids)
    assert len(prompt.token_ids) <= limit and prompt.dropped_messages % 2 == 0
    assert prompt.dropped_messages > 0 and prompt.cut_tokens == 0
    assert "be kind" in text and "number 6" in text
    assert f"number {prompt.dropped_messages} " in text
    assert f"number {prompt.dropped_messages - 1} " not in text


def test_a_last_message_too_long_is_cut_from_the_left(tokenizer: PreTrainedTokenizerBase) -> None:
    """Its end stays, the system's message stays, and the tokens cut are counted."""
    long = Message("user", "BEGIN " + "é" * 300 + " the end")
    prompt = fit_prompt(tokenizer, [SYSTEM, *CHAT[:2], long], 150)
    text = tokenizer.decode(prompt.token_ids)
    assert len(prompt.token_ids) <= 150 and prompt.dropped_messages == 2
    assert "be kind" in text and "the end" in text and "BEGIN" not in text
    assert prompt.cut_tokens > 400


def test_a_system_message_too_long_still_fits(tokenizer: PreTrainedTokenizerBase) -> None:
    """Even then the prompt fits and ends as a prompt ends."""
    prompt = fit_prompt(tokenizer, [Message("system", "s" * 900), Message("user", "hi")], 64)
    assert len(prompt.token_ids) == 64
    assert str(tokenizer.decode(prompt.token_ids)).endswith("assistant\n")


def test_a_chat_the_template_refuses(tokenizer: PreTrainedTokenizerBase) -> None:
    """The template's own words and the roles are in the error."""
    strict = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    strict.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(InvalidInput, match=r"\(system user\): no system role"):
        fit_prompt(strict, [SYSTEM, Message("user", "hi")], 100)
