"""A chat as prompt tokens that fit: the oldest messages go, the system's and the last stay.

Knows the tokenizer and its chat template, not the model, nor who renders the chat in the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from core.errors import InvalidInput
from core.generation import Message


class Tokenizer(Protocol):
    """What is needed of a tokenizer, in transformers' words."""

    def __call__(self, text: str, *, add_special_tokens: bool, verbose: bool) -> Any:
        """Return a mapping with `input_ids`."""
        ...

    def decode(self, token_ids: list[int]) -> Any:
        """Return the text of tokens."""
        ...

    def apply_chat_template(
        self, conversation: Any, *, add_generation_prompt: bool, tokenize: bool
    ) -> Any:
        """Return a chat as one text, for `tokenize` False; raises jinja2.TemplateError."""
        ...


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model reads; `cut_tokens` counts what was cut off a last message too long.

    `messages` are what was rendered: those that stayed, the last one shortened where it had to be.
    """

    token_ids: tuple[int, ...]
    dropped_messages: int
    cut_tokens: int
    messages: tuple[Message, ...]


def room_for_prompt(max_context: int, max_tokens: int) -> int:
    """Return how many tokens a prompt may have: the reply's are set aside, a quarter stays."""
    return max(max_context - max_tokens, max_context // 4)


def render(tokenizer: Tokenizer, messages: Sequence[Message]) -> tuple[int, ...]:
    """Return a whole chat's tokens; raises InvalidInput if the template refuses it."""
    return tuple(_render(tokenizer, messages))


def fit_prompt(tokenizer: Tokenizer, messages: Sequence[Message], limit: int) -> Prompt:
    """Render a chat in at most `limit` tokens; raises InvalidInput if the template refuses it."""
    if not messages:
        raise InvalidInput("a request needs at least one message")
    system = [messages[0]] if messages[0].role == "system" and len(messages) > 1 else []
    turns = list(messages[len(system) :])
    first = 0
    ids = _render(tokenizer, [*system, *turns])
    while len(ids) > limit and first < len(turns) - 1:
        first = _next_start(tokenizer, turns, first, len(ids) - limit)
        ids = _render(tokenizer, [*system, *turns[first:]])
    if len(ids) <= limit:
        return Prompt(tuple(ids), first, 0, (*system, *turns[first:]))
    shorter = _shorten_last(tokenizer, system, turns[-1], len(ids) - limit)
    kept = _render(tokenizer, [*system, shorter])[-limit:]
    return Prompt(tuple(kept), first, len(ids) - len(kept), (*system, shorter))


def _next_start(tokenizer: Tokenizer, turns: Sequence[Message], first: int, excess: int) -> int:
    """Return where a chat may start so that about `excess` tokens go: at a user's message."""
    last = len(turns) - 1
    freed = 0
    while first < last and (freed < excess or turns[first].role != "user"):
        freed += len(_encode(tokenizer, turns[first].content))
        first += 1
    return first


def _shorten_last(
    tokenizer: Tokenizer, system: Sequence[Message], message: Message, excess: int
) -> Message:
    """Cut about `excess` tokens (and a few for the seam) from the left of a message."""
    ids = _encode(tokenizer, message.content)
    kept = ids[min(len(ids), excess + 4) :]
    return Message(message.role, str(tokenizer.decode(kept)).lstrip("\ufffd"))


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def _render(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    from jinja2 import TemplateError

    chat = [{"role": message.role, "content": message.content} for message in messages]
    try:
        text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    except TemplateError as error:
        roles = " ".join(message.role for message in messages)
        raise InvalidInput(
            f"the base model's chat template refuses this chat ({roles}): {error}"
        ) from error
    return _encode(tokenizer, str(text))
