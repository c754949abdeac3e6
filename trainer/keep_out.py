"""Keep an adapter out of the directions that plain questions use, and set it on those that its own
examples use.

What a layer is given while the base answers plain questions lies mostly in few directions. An
adapter whose input matrices A are held at right angles to them adds next to nothing there, and
learns from what is left (gradient projection: Saha et al. 2021; for LoRA: Tang et al. 2025). So
how much it may be trained is no longer paid for in facts. What is left is small, and a random A of
few rows sees next to nothing of it; so A starts in the directions in which the examples' own inputs
have most left (as EVA starts in those that hold most of all: Paischer et al. 2024).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from transformers import TrainerCallback

from trainer.scoring import Scored

TOKENS = 512
"""Tokens that are looked at, of all the texts together."""
STEP_FACTOR = 1.5
"""How much larger steps are than those of an adapter that may learn everywhere, whose inputs are
seen whole (docs/experiments.md)."""
FIRST_LENGTH = 3**-0.5
"""How long a row of A is at first: as PEFT's own are, whose numbers are uniform in ±1/√width."""

Directions = dict[str, torch.Tensor]


def plain_directions(model: Any, rows: Sequence[Scored], share: float, seed: int) -> Directions:
    """Return for each layer with a LoRA an orthonormal basis of what it is given.  # (width, k)

    `model` is a PeftModel, `rows` plain questions with the base's own answers. The basis is the
    smallest that holds `share` of the inputs, each of which counts alike however long it is.
    """

    def smallest(name: str, inputs: torch.Tensor) -> torch.Tensor:
        squares, basis = _principal(inputs)
        return basis[:, : int((squares.cumsum(0) < share * squares.sum()).sum()) + 1]

    return _of_inputs(model, rows, seed, smallest)


def own_directions(
    model: Any, rows: Sequence[Scored], closed: Directions, rank: int, seed: int
) -> Directions:
    """Return for each layer with a LoRA up to `rank` orthonormal directions.  # (width, k)

    They are those that hold most of what the layer is given by `rows`, the texts to learn from,
    once what lies along `closed` is taken out.
    """

    def fullest(name: str, inputs: torch.Tensor) -> torch.Tensor:
        left = inputs - (inputs @ closed[name]) @ closed[name].T
        return _principal(left)[1][:, :rank]

    return _of_inputs(model, rows, seed, fullest)


def _of_inputs(
    model: Any,
    rows: Sequence[Scored],
    seed: int,
    find: Callable[[str, torch.Tensor], torch.Tensor],
) -> Directions:
    """Return what is found in a layer's inputs, each of length 1, while the base reads `rows`."""
    heard = _Heard(model, seed, max(1, TOKENS // max(1, len(rows))))
    decoder = model.get_base_model().get_decoder()
    with torch.inference_mode(), model.disable_adapter(), heard:
        for row in rows:
            ids = torch.tensor([[*row.prompt_ids, *row.reply_ids]], device=model.device)
            heard.next(ids.shape[1])
            decoder(input_ids=ids, use_cache=False)
    found: Directions = {}
    for name in set(heard.same.values()):
        inputs = torch.cat(heard.inputs.pop(name)).float()
        found[name] = find(name, inputs / inputs.norm(dim=1, keepdim=True).clamp(min=1e-6))
    return {name: found[first] for name, first in heard.same.items()}


def _principal(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the squared singular values, largest first, and the right singular vectors.

    # (N, width) → (k,), (width, k), where k counts those that are not 0
    """
    squares, left = torch.linalg.eigh(rows @ rows.T)  # ascending; (N,), (N, N)
    squares, left = squares.flip(0), left.flip(1)
    count = max(1, int((squares > 1e-6 * squares[0]).sum()))
    squares, left = squares[:count].clamp(min=1e-12), left[:, :count]
    return squares, rows.T @ left / squares.sqrt()


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
            self.inputs.setdefault(name, []).append(given[0][0, self._places])

        return listen


class KeepOut(TrainerCallback):
    """Closes directions to what an adapter learns: to each gradient of A (so that the optimizer's
    steps are of full size in what is left), and to what each step makes of it.

    A fresh adapter starts along `start`, at right angles to what is closed; one that a stage before
    has trained (no `start`) keeps what it has there, unchanged.
    """

    def __init__(self, model: Any, closed: Directions, start: Directions | None) -> None:
        layers = dict(model.named_modules())
        held = [(name, weight) for name in closed for weight in layers[name].lora_A.parameters()]
        with torch.no_grad():
            if start is not None:
                for name, weight in held:
                    weight[: start[name].shape[1]] = FIRST_LENGTH * start[name].T
                    weight.sub_((weight @ closed[name]) @ closed[name].T)
            self._held = [(weight, closed[name], weight @ closed[name]) for name, weight in held]

    @torch.no_grad()
    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take out of each gradient what would be undone."""
        for weight, basis, _ in self._held:
            if weight.grad is not None:
                weight.grad.sub_((weight.grad @ basis) @ basis.T)

    @torch.no_grad()
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put back what lies along the basis: the optimizer steps by element, not by direction."""
        for weight, basis, own in self._held:
            weight.sub_((weight @ basis - own) @ basis.T)  # (rank, width)
