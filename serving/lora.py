"""Several adapters in one batch: each row of a pass gets its own adapter's addition.

`wrap_linears` puts a `LoraLinear` in the place of every nn.Linear. Before a pass,
`AdapterSwitch.aim` says which adapter each row uses; a projection then computes PEFT's y = base(x)
+ B(A(x)) * scale with the A and B of all the adapters in the pass side by side, each row seeing
only its own adapter's ranks. Used by the model thread only, except that adapters themselves are
immutable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

_KEPT_PACKS = 4  # compositions of adapters kept side by side; each is a copy of its adapters


@dataclass(frozen=True, slots=True)
class LoraPair:
    """One module's adapter: a  # (rank, in); b  # (out, rank), times the scale."""

    a: torch.Tensor
    b: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class LoadedAdapter:
    """A validated adapter in memory: its pairs by module name. Immutable; equal only to itself."""

    name: str
    sha256: str
    pairs: Mapping[str, LoraPair]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _Slab:
    """One module's A and B of several adapters: a  # (ranks, in); b  # (out, ranks)."""

    a: torch.Tensor
    b: torch.Tensor
    layout: tuple[tuple[int, int], ...]  # (adapter's index in the pack, its rank), in order


@dataclass(frozen=True, slots=True)
class _Pack:
    adapters: tuple[LoadedAdapter, ...]
    slabs: dict[str, _Slab]


class AdapterSwitch:
    """Which adapter each row of the next forward pass uses."""

    def __init__(self) -> None:
        self._packs: dict[frozenset[LoadedAdapter], _Pack] = {}  # oldest use first
        self._slabs: Mapping[str, _Slab] = {}
        self._owners: torch.Tensor | None = None  # (rows,) index into the pack, -1 for the base
        self._masks: dict[tuple[tuple[int, int], ...], torch.Tensor] = {}

    def aim(self, adapters: Sequence[LoadedAdapter | None], device: torch.device) -> None:
        """Say whose row each row is; None is the base alone."""
        self._masks.clear()
        used = frozenset(adapter for adapter in adapters if adapter is not None)
        if not used:
            self._slabs, self._owners = {}, None
            return
        pack = self._pack_for(used)
        self._slabs = pack.slabs
        if len(pack.adapters) == 1 and None not in adapters:
            self._owners = None
            return
        index = {adapter: position for position, adapter in enumerate(pack.adapters)}
        owners = [-1 if adapter is None else index[adapter] for adapter in adapters]
        self._owners = torch.tensor(owners, device=device)

    def forget(self, adapter: LoadedAdapter) -> None:
        """Drop every copy of an adapter's tensors held here."""
        self._packs = {key: pack for key, pack in self._packs.items() if adapter not in key}
        self._slabs, self._owners = {}, None

    def added_to(self, module: str, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return y plus what each row's adapter adds for x.

        x  # (rows, width, in); y  # (rows, width, out)
        """
        slab = self._slabs.get(module)
        if slab is None:
            return y
        h = functional.linear(x, slab.a)  # (rows, width, ranks)
        if self._owners is not None:
            h = h.masked_fill(self._foreign(slab.layout, self._owners), 0.0)
        return y + functional.linear(h, slab.b)

    def _foreign(self, layout: tuple[tuple[int, int], ...], owners: torch.Tensor) -> torch.Tensor:
        """Say which ranks are not the row's own.  # (rows, 1, ranks) bool"""
        mask = self._masks.get(layout)
        if mask is None:
            ranks = [index for index, rank in layout for _ in range(rank)]
            mask = torch.tensor(ranks, device=owners.device)[None, :] != owners[:, None]
            mask = self._masks[layout] = mask[:, None, :]
        return mask

    def _pack_for(self, used: frozenset[LoadedAdapter]) -> _Pack:
        """Take a kept pack that holds all of `used` and little else, or build one."""
        fitting = [
            key for key in self._packs if used <= key and len(key) <= len(used) + (len(used) > 1)
        ]
        key = min(fitting, key=len) if fitting else used
        pack = self._packs.pop(key, None) or _build_pack(tuple(sorted(used, key=lambda a: a.name)))
        self._packs[key] = pack
        while len(self._packs) > _KEPT_PACKS:
            del self._packs[next(iter(self._packs))]
        return pack


class LoraLinear(nn.Linear):
    """A linear layer that adds each row's adapter; shares the weights of the one it replaces."""

    def __init__(self, base: nn.Linear, name: str, switch: AdapterSwitch) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self._name = name
        self._switch = switch

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return base(x) plus the rows' adapters.  # (rows, width, out)"""
        y = functional.linear(input, self.weight, self.bias)
        return self._switch.added_to(self._name, input, y)


def linear_shapes(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Return (out, in) of every plain linear layer by module name: what an adapter may target."""
    return {
        name: (module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    }


def wrap_linears(model: nn.Module) -> AdapterSwitch:
    """Replace every plain linear layer of the model in place; return the switch they listen to."""
    switch = AdapterSwitch()
    for name in linear_shapes(model):
        parent, _, leaf = name.rpartition(".")
        module = model.get_submodule(name)
        if type(module) is nn.Linear:
            setattr(model.get_submodule(parent), leaf, LoraLinear(module, name, switch))
    return switch


def _build_pack(adapters: tuple[LoadedAdapter, ...]) -> _Pack:
    modules = sorted({module for adapter in adapters for module in adapter.pairs})
    return _Pack(adapters, {module: _build_slab(adapters, module) for module in modules})


def _build_slab(adapters: tuple[LoadedAdapter, ...], module: str) -> _Slab:
    present = [
        (i, adapter.pairs[module]) for i, adapter in enumerate(adapters) if module in adapter.pairs
    ]
    layout = tuple((index, pair.a.shape[0]) for index, pair in present)
    if len(present) == 1:
        return _Slab(present[0][1].a, present[0][1].b, layout)
    return _Slab(
        torch.cat([pair.a for _, pair in present], dim=0),
        torch.cat([pair.b for _, pair in present], dim=1),
        layout,
    )
