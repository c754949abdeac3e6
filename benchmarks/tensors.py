"""The most bytes that tensors made while it is open held at once: a CPU has no allocator to ask."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Peak(TorchDispatchMode):
    """Counts each storage once, from the operation that made it until it is gone.

    What was there before counts as nothing, and as less than that once it is gone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self._now = 0
        self._live: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self._see((args, kwargs), made=False)
        made = func(*args, **(kwargs or {}))
        self._see(made, made=True)
        self.bytes = max(self.bytes, self._now)
        return made

    def _see(self, what: Any, *, made: bool) -> None:
        for one in tree_leaves(what):
            if not isinstance(one, torch.Tensor) or one.device.type == "meta":
                continue
            storage = one.untyped_storage()
            key = storage._cdata
            if key not in self._live:
                self._live[key] = storage.nbytes()
                self._now += self._live[key] if made else 0
                weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self._now -= self._live.pop(key, 0)
