"""How likely each token was: the model's own figures, by transformers and PEFT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests.vllm_double.loras import Lora


class Scorer:
    """Scores tokens under the base or an adapter, each loaded once."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._models: dict[int, Any] = {}

    def logprobs(self, lora: Lora | None, prompt: list[int], ids: list[int]) -> list[float]:
        """Return the log-probability of each token after the prompt."""
        number = lora.number if lora else 0
        if number not in self._models:
            model: Any = AutoModelForCausalLM.from_pretrained(self._base, dtype=torch.float32)
            self._models[number] = PeftModel.from_pretrained(model, lora.path) if lora else model
        with torch.no_grad():
            logits = self._models[number](torch.tensor([[*prompt, *ids]])).logits[0]
        chances = logits[len(prompt) - 1 : -1].log_softmax(-1)  # (len(ids), vocab)
        return [float(row[token]) for row, token in zip(chances, ids, strict=True)]
