"""From chat messages to token ids, exactly as serving renders them.

A prompt is the chat template's rendering with the generation prompt; a completion is tokenised on
its own, as the model emits it, and ends with the template's end mark only if the reply was
complete: a cut reply followed by an end mark would teach, when disliked, never to end. Nothing is
ever cut from the right of a completion that fits: the oldest messages go first. Knows tokenizers,
not models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.jobs import ChatMessage

_PROBE = "x"
_PROMPT_RESERVE = 0.25
"""The share of `max_length` that a prompt may keep when the completion alone would fill
everything."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """Encodes prompts and completions for one tokenizer; `end_id` closes an assistant's turn."""

    tokenizer: Any
    end_id: int
    max_length: int

    def completion(self, text: str, *, complete: bool) -> list[int]:
        """Return the completion's tokens, with the end mark if the reply was complete.

        One that leaves no room for a prompt is cut at the end, and then has no end mark either.
        """
        ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        room = self.max_length - int(_PROMPT_RESERVE * self.max_length)
        if len(ids) >= room:
            return ids[:room]
        return [*ids, self.end_id] if complete else ids

    def prompt(self, messages: Sequence[ChatMessage], *, room: int) -> list[int]:
        """Return the prompt's tokens in at most `room`: the oldest messages are dropped first.

        The system message and the last message stay; if they alone do not fit, their oldest tokens
        go.
        """
        kept = list(messages)
        first = 1 if kept and kept[0].role == "system" else 0
        ids = self._render(kept)
        while len(ids) > room and len(kept) > first + 1:
            del kept[first]
            ids = self._render(kept)
        return ids[max(0, len(ids) - room) :]

    def pair(
        self, messages: Sequence[ChatMessage], text: str, *, complete: bool
    ) -> tuple[list[int], list[int]]:
        """Return the tokens of prompt and completion, together at most `max_length`."""
        completion = self.completion(text, complete=complete)
        return self.prompt(messages, room=self.max_length - len(completion)), completion

    def _render(self, messages: Sequence[ChatMessage]) -> list[int]:
        text = self.tokenizer.apply_chat_template(
            [message.model_dump() for message in messages],
            add_generation_prompt=True,
            tokenize=False,
        )
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def make_encoder(tokenizer: Any, max_length: int) -> Encoder:
    """Return an encoder whose end mark is the first token the template puts after a reply."""
    asked = [{"role": "user", "content": _PROBE}]
    answered = [*asked, {"role": "assistant", "content": _PROBE}]
    opened = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    closed = tokenizer.apply_chat_template(answered, tokenize=False)
    if closed.startswith(opened + _PROBE):
        after = tokenizer(closed[len(opened + _PROBE) :], add_special_tokens=False)["input_ids"]
        if after and after[0] in tokenizer.all_special_ids:
            return Encoder(tokenizer, int(after[0]), max_length)
    return Encoder(tokenizer, int(tokenizer.eos_token_id), max_length)
