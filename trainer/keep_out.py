"""Keep an adapter out of the directions that plain questions use.

What a layer is given while the base answers plain questions lies mostly in few directions. An
adapter whose input matrices A are held at right angles to them adds next to nothing there, and
learns from what is left (gradient projection: Saha et al. 2021; for LoRA: Tang et al. 2025). So
how much it may be trained is no longer paid for in facts.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from transformers import TrainerCallback

from trainer.scoring import Scored

TOKENS = 512
"""Tokens that are looked at, of all the questions together."""

Directions = dict[str, torch.Tensor]


def step_factor(share: float) -> float:
    """Return how much larger steps must be: what is left of an input is as much smaller."""
    return float((1 - share) ** -0.5)


def plain_directions(model: Any, rows: Sequence[Scored], share: float, seed: int) -> Directions:
    """Return for each layer with a LoRA an orthonormal basis of what it is given.  # (width, k)

    `model` is a PeftModel, `rows` plain questions with the base's own answers. The basis is the
    smallest that holds `share` of the inputs, each of which counts alike however long it is.
    """
    heard = _Heard(model, seed, max(1, TOKENS // max(1, len(rows))))
    with torch.inference_mode(), model.disable_adapter(), heard:
        for row in rows:
            ids = torch.tensor([[*row.prompt_ids, *row.reply_ids]], device=model.device)
            heard.next(ids.shape[1])
            model(input_ids=ids, use_cache=False)
    found: dict[str, torch.Tensor] = {}
    for name in set(heard.same.values()):
        found[name] = _basis(torch.cat(heard.inputs[name]), share)
    return {name: found[first] for name, first in heard.same.items()}


def _basis(inputs: torch.Tensor, share: float) -> torch.Tensor:
    """Return the right singular vectors that hold `share` of the squares.  # (N, width) → (…, k)"""
    rows = inputs / inputs.norm(dim=1, keepdim=True).clamp(min=1e-6)
    values, left = torch.linalg.eigh(rows @ rows.T)  # ascending; (N,), (N, N)
    values, left = values.flip(0).clamp(min=0), left.flip(1)
    count = int((values.cumsum(0) < share * values.sum()).sum()) + 1
    basis: torch.Tensor = rows.T @ left[:, :count] / values[:count].sqrt().clamp(min=1e-6)
    return basis


class _Heard:
    """What each layer with a LoRA is given, at some places of each text, while open.

    Layers given the very same tensor (query, key and value) share what is kept: `same` says whose.
    """

    def __init__(self, model: Any, seed: int, places: int) -> None:
        self._layers = {n: m for n, m in model.named_modules() if isinstance(m, LoraLayer)}
        self._chance, self._count = random.Random(seed), places
        self._places: list[int] = []
        self._last: tuple[str, object] = ("", None)
        self.same: dict[str, str] = {}
        self.inputs: dict[str, list[torch.Tensor]] = {}

    def __enter__(self) -> _Heard:
        self._hooks = [
            layer.register_forward_pre_hook(self._listener(name))  # type: ignore[attr-defined]
            for name, layer in self._layers.items()
        ]
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def next(self, tokens: int) -> None:
        """Choose the places of the next text."""
        self._places = self._chance.sample(range(tokens), min(tokens, self._count))

    def _listener(self, name: str) -> Any:
        def listen(module: object, given: tuple[torch.Tensor, ...]) -> None:
            first, last = self._last
            if given[0] is last:
                self.same[name] = first
                return
            self.same[name], self._last = name, (name, given[0])
            self.inputs.setdefault(name, []).append(given[0][0, self._places].float())

        return listen


class KeepOut(TrainerCallback):
    """Holds the adapter at right angles to directions: its first weights, each gradient (so that
    the optimizer's steps are of full size in what is left), and what each step makes of them.
    """

    def __init__(self, model: Any, directions: Directions) -> None:
        layers = dict(model.named_modules())
        self._held = [
            (weight, basis)
            for name, basis in directions.items()
            for weight in layers[name].lora_A.parameters()
        ]
        self._hold()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take out of each gradient what would be undone."""
        for weight, basis in self._held:
            if weight.grad is not None:
                weight.grad.sub_((weight.grad @ basis) @ basis.T)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put the weights back: the optimizer steps by element, not by direction."""
        self._hold()

    @torch.no_grad()
    def _hold(self) -> None:
        for weight, basis in self._held:
            weight.sub_((weight @ basis) @ basis.T)  # (rank, width)
