"""Requests, and what PEFT and transformers' own `generate` write, one adapter at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.generation import BASE, GenerationRequest, GenerationResult, Message, Sampling
from serving.engine import LocalEngine

NAMES = ("cats@v1", "cats@v2", "dogs@v1")
"""The adapters every serving test may use."""

Chat = tuple[Message, ...]


def chat(text: str) -> Chat:
    """A chat of one user message."""
    return (Message("user", text),)


def greedy(text: str, adapter: str = BASE, tokens: int = 24) -> GenerationRequest:
    """A greedy request for a one-message chat."""
    return GenerationRequest(chat(text), adapter, Sampling(temperature=0.0, max_tokens=tokens))


class Reference:
    """Greedy replies by PEFT, each kept once computed."""

    def __init__(self, base: Path, adapters: Mapping[str, Path]) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(base)
        self._model: PeftModel | None = None
        for name, directory in adapters.items():
            key = name.replace("@", "_")
            if self._model is None:
                model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
                self._model = PeftModel.from_pretrained(model, directory, adapter_name=key)
            else:
                self._model.load_adapter(directory, adapter_name=key)
        self._known: dict[tuple[str, str, int], tuple[int, ...]] = {}

    def tokens(self, text: str, adapter: str = BASE, tokens: int = 24) -> tuple[int, ...]:
        """Return the greedy tokens of a reply, the end token left out."""
        key = (text, adapter, tokens)
        if key not in self._known:
            self._known[key] = self._generate(*key)
        return self._known[key]

    def _generate(self, text: str, adapter: str, tokens: int) -> tuple[int, ...]:
        assert self._model is not None
        prompt = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": text}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        arguments = {**prompt, "do_sample": False, "max_new_tokens": tokens}
        if adapter == BASE:
            with self._model.disable_adapter():
                ids = self._model.generate(**arguments)
        else:
            self._model.set_adapter(adapter.replace("@", "_"))
            ids = self._model.generate(**arguments)
        drawn = ids[0, prompt["input_ids"].shape[1] :].tolist()
        return tuple(drawn[:-1] if drawn[-1] == self._tokenizer.eos_token_id else drawn)


async def answer(engine: LocalEngine, request: GenerationRequest) -> GenerationResult:
    """Write one reply to its end."""
    return await engine.generate(request).result()
