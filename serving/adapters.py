"""An adapter directory, read with suspicion: everything is checked before anything is used.

`read_adapter` either returns an immutable LoadedAdapter that fits the base model exactly, or raises
AdapterRefused naming what is wrong, what was found and what was expected. Only safetensors are
read. It touches no model and may run in any thread.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from core.errors import AdapterRefused
from core.manifest import PEFT_CONFIG, WEIGHTS
from serving.lora import LoadedAdapter, LoraPair
from serving.published import check_published

_PREFIX = "base_model.model."
_HEADER_LIMIT_BYTES = 16 << 20  # a header names some thousand tensors at most: well under this
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "default")
_HARMLESS = {  # keys of adapter_config.json that do not change what the tensors mean
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "inference_mode",
    "init_lora_weights", "layers_pattern", "loftq_config", "lora_alpha", "lora_dropout",
    "megatron_core", "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern",
    "revision", "runtime_config", "target_modules", "task_type", "use_rslora",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _LoraShape:
    """What adapter_config.json says; `targets` are module names or one pattern for them."""

    rank: int
    scale: float
    targets: tuple[str, ...] | str


def read_adapter(
    directory: Path,
    *,
    name: str,
    base_sha256: str,
    linears: Mapping[str, tuple[int, int]],
    dtype: torch.dtype,
    device: torch.device,
) -> LoadedAdapter:
    """Validate a published adapter against the base model and bring it into memory.

    `linears` holds (out, in) of each linear layer by name. Raises AdapterRefused.
    """
    sha256 = check_published(directory, name, base_sha256).sha256
    shape = _read_config(directory / PEFT_CONFIG)
    modules = _target_modules(directory / PEFT_CONFIG, shape.targets, linears)
    expected = {
        key: size
        for module in modules
        for key, size in _expected_tensors(module, linears[module], shape.rank).items()
    }
    tensors = _read_tensors(directory / WEIGHTS, expected)
    pairs = {  # copies: what was read is a view of the file, which may change
        module: LoraPair(
            a=tensors[f"{_PREFIX}{module}.lora_A.weight"].to(device, dtype, copy=True),
            b=(tensors[f"{_PREFIX}{module}.lora_B.weight"].float() * shape.scale).to(device, dtype),
        )
        for module in modules
    }
    for module in _with_infinite([(m, t) for m, pair in pairs.items() for t in (pair.a, pair.b)]):
        raise AdapterRefused(
            f"{directory}: {module}: too large for {dtype}; expected values finite after scaling"
        )
    size = sum(t.numel() * t.element_size() for pair in pairs.values() for t in (pair.a, pair.b))
    return LoadedAdapter(name, sha256, MappingProxyType(pairs), size)


# -- adapter_config.json


def _read_config(path: Path) -> _LoraShape:
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise AdapterRefused(f"{path}: not valid JSON: {error}") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        found = config.get("peft_type") if isinstance(config, dict) else type(config).__name__
        raise AdapterRefused(f"{path}: peft_type is {found!r}, expected 'LORA'")
    _refuse_features(path, config)
    rank = _positive(path, config, "r", int)
    alpha = _positive(path, config, "lora_alpha", int, float)
    targets = config.get("target_modules")
    if isinstance(targets, list) and targets and all(isinstance(item, str) for item in targets):
        targets = tuple(targets)
    elif not (isinstance(targets, str) and targets):
        raise AdapterRefused(
            f"{path}: target_modules is {targets!r}, expected names or one pattern"
        )
    scale = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    return _LoraShape(int(rank), scale, targets)


def _refuse_features(path: Path, config: dict[str, Any]) -> None:
    """Refuse what would make the plain product B(A(x)) wrong, unknown keys included."""
    for key in ("rank_pattern", "alpha_pattern", "loftq_config"):
        if config.get(key):
            raise AdapterRefused(f"{path}: {key} is {config[key]!r}, which is not supported")
    for key, value in config.items():
        if key not in _HARMLESS and value not in (None, False, "none", [], {}):
            raise AdapterRefused(f"{path}: {key} is {value!r}, which is not supported")
    if (start := config.get("init_lora_weights", True)) not in _PLAIN_STARTS:
        raise AdapterRefused(
            f"{path}: init_lora_weights is {start!r}, which changes the base weights; not supported"
        )


def _positive(
    path: Path, config: dict[str, Any], key: str, *types: type[int] | type[float]
) -> float:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, types):
        raise AdapterRefused(f"{path}: {key} is {value!r}, expected a positive number")
    if not 0 < value < 1e6:
        raise AdapterRefused(f"{path}: {key} is {value!r}, expected a number from 1 to a million")
    return float(value)


def _target_modules(
    path: Path, targets: tuple[str, ...] | str, linears: Mapping[str, tuple[int, int]]
) -> list[str]:
    """Return the linear layers the adapter says it changes, by PEFT's rules for names."""
    if isinstance(targets, str):
        if targets == "all-linear":
            return [module for module in linears if module != "lm_head"]
        try:
            pattern = re.compile(targets)
        except re.error as error:
            raise AdapterRefused(
                f"{path}: target_modules {targets!r} is no pattern: {error}"
            ) from None
        modules = [module for module in linears if pattern.fullmatch(module)]
        missing = [] if modules else [targets]
    else:
        by_target = {
            target: [m for m in linears if m == target or m.endswith(f".{target}")]
            for target in targets
        }
        missing = sorted(target for target, found in by_target.items() if not found)
        modules = sorted({module for found in by_target.values() for module in found})
    if missing:
        raise AdapterRefused(
            f"{path}: target module {missing[0]!r} is no linear layer of the base model"
        )
    return modules


# -- adapter_model.safetensors


def _expected_tensors(module: str, size: tuple[int, int], rank: int) -> dict[str, tuple[int, int]]:
    outputs, inputs = size
    return {
        f"{_PREFIX}{module}.lora_A.weight": (rank, inputs),
        f"{_PREFIX}{module}.lora_B.weight": (outputs, rank),
    }


def _read_tensors(path: Path, expected: Mapping[str, tuple[int, int]]) -> dict[str, torch.Tensor]:
    """Read exactly the expected tensors, each of its shape, a float type, finite."""
    _check_header_size(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            found = set(file.keys())
            _check_names(path, found, set(expected))
            for key, size in expected.items():
                part = file.get_slice(key)
                _check_tensor(path, key, tuple(part.get_shape()), part.get_dtype(), size)
            tensors = {key: file.get_tensor(key) for key in expected}
    except (SafetensorError, OSError) as error:
        raise AdapterRefused(f"{path}: not a readable safetensors file: {error}") from None
    for key in _with_infinite(list(tensors.items())):
        bad = int((~torch.isfinite(tensors[key])).sum())
        raise AdapterRefused(f"{path}: {key}: {bad} values are NaN or infinite, expected none")
    return tensors


def _with_infinite(tensors: Sequence[tuple[str, torch.Tensor]]) -> Iterator[str]:
    """Yield the names of those with a value that is not finite.

    The sums, quicker to look at, may overflow where all values are finite.
    """
    sums = torch.stack([tensor.sum() for _, tensor in tensors])
    if not bool(torch.isfinite(sums).all()):
        yield from (name for name, tensor in tensors if not bool(torch.isfinite(tensor).all()))


def _check_header_size(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if size < 8 or header > min(size - 8, _HEADER_LIMIT_BYTES):
        raise AdapterRefused(
            f"{path}: its header claims {header} bytes of a file of {size}, expected at most "
            f"{_HEADER_LIMIT_BYTES}: not a safetensors file, or truncated"
        )


def _check_names(path: Path, found: set[str], expected: set[str]) -> None:
    if missing := sorted(expected - found):
        raise AdapterRefused(
            f"{path}: tensor {missing[0]} is missing ({len(missing)} in all); expected "
            f"{len(expected)} tensors, found {len(found)}"
        )
    if extra := sorted(found - expected):
        raise AdapterRefused(
            f"{path}: tensor {extra[0]} is not expected ({len(extra)} such in all); expected "
            f"A and B of each target module, {len(expected)} tensors, found {len(found)}"
        )


def _check_tensor(
    path: Path, key: str, shape: tuple[int, ...], dtype: str, expected: tuple[int, int]
) -> None:
    if shape != expected:
        raise AdapterRefused(f"{path}: {key}: shape is {list(shape)}, expected {list(expected)}")
    if dtype not in _DTYPES:
        raise AdapterRefused(
            f"{path}: {key}: dtype is {dtype}, expected one of {', '.join(_DTYPES)}"
        )
