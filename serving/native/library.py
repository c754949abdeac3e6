"""The compiled decoder: built by the machine's C compiler, kept, loaded, and its structures.

The library is built once for a source, a compiler and a processor, into the user's cache directory;
a build takes some seconds. Knows no model and no request.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from ctypes import POINTER, c_double, c_float, c_int, c_int32, c_long, c_void_p
from functools import cache
from pathlib import Path

import torch

from core.processors import told

log = logging.getLogger(__name__)

LANES = 16
"""Outputs in a panel of a packed matrix; ranks and head sizes are multiples of it."""
CHUNK = 32
"""Inputs of a quantized product that share a step."""
PAGE = 64
"""Slots of the cache that lie together."""
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""A layer's adapted modules, in the order of the C code."""
DTYPES = {torch.bfloat16: [], torch.float32: ["-DFLOAT32"]}
"""The flags that choose a type of numbers."""
_FOLDER = Path(__file__).parent
_FLAGS = ["-O3", "-march=native", "-shared", "-fPIC", "-pthread"]
_BUILD_S = 180


class NotAvailable(Exception):
    """The compiled decoder cannot be used here; says why."""


class Linear(ctypes.Structure):
    """A packed matrix, as numbers or as bytes with their scales, and its bias."""

    _fields_ = (
        ("weight", c_void_p), ("bias", c_void_p), ("bytes", c_void_p), ("scales", c_void_p),
        ("coarse", c_int32), ("reserved", c_int32),
    )  # fmt: skip


class Layer(ctypes.Structure):
    """One decoder layer."""

    _fields_ = (
        ("norm_attention", c_void_p), ("norm_mlp", c_void_p), ("norm_query", c_void_p),
        ("norm_key", c_void_p), ("qkv", Linear), ("out", Linear), ("gate_up", Linear),
        ("down", Linear), ("window", c_int32), ("reserved", c_int32),
    )  # fmt: skip


class Model(ctypes.Structure):
    """A whole decoder with its cache."""

    _fields_ = (
        ("layers", c_int32), ("hidden", c_int32), ("heads", c_int32), ("kv_heads", c_int32),
        ("head_dim", c_int32), ("inner", c_int32), ("vocab", c_int32), ("slots", c_int32),
        ("rows", c_int32), ("gelu", c_int32), ("epsilon", c_float), ("attention_scale", c_float),
        ("embedding_scale", c_float), ("reserved", c_int32), ("embedding", c_void_p),
        ("norm_last", c_void_p), ("head", Linear), ("cosine", c_void_p), ("sine", c_void_p),
        ("layer", POINTER(Layer)), ("cache", c_void_p),
    )  # fmt: skip


class Pair(ctypes.Structure):
    """One module's adapter, packed."""

    _fields_ = (("a", Linear), ("b", c_void_p), ("ranks", c_int32), ("reserved", c_int32))


class Pass(ctypes.Structure):
    """What one forward pass works on."""

    _fields_ = (
        ("count", c_int32), ("groups", c_int32), ("outputs", c_int32), ("reserved", c_int32),
        ("token", c_void_p), ("row", c_void_p), ("position", c_void_p), ("group_start", c_void_p),
        ("adapter", c_void_p), ("output", c_void_p), ("logits", c_void_p),
    )  # fmt: skip


class Draw(ctypes.Structure):
    """How one row's token is drawn, and the token."""

    _fields_ = (
        ("top_p", c_double), ("point", c_double), ("temperature", c_float), ("top_k", c_int32),
        ("token", c_int32), ("reserved", c_int32),
    )  # fmt: skip


@cache
def load_library(dtype: torch.dtype) -> ctypes.CDLL:
    """Return the decoder for a type of numbers, built if need be; raises NotAvailable."""
    if dtype not in DTYPES:
        raise NotAvailable(f"it has no arithmetic for {dtype}")
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        raise NotAvailable("there is no C compiler (install gcc, or name one in CC)")
    flags = [*_FLAGS, *DTYPES[dtype]]
    path = _home() / f"decoder-{_fingerprint(compiler, flags)}.so"
    try:
        if not path.exists():
            _build(compiler, flags, path)
        return _typed(ctypes.CDLL(str(path)))
    except OSError as error:
        raise NotAvailable(f"{path} cannot be made or loaded: {error}") from error


def _home() -> Path:
    """Return a directory of this user's own to keep builds in."""
    kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "thumbtune"
    try:
        kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="thumbtune-"))
    return kept if os.access(kept, os.W_OK) else Path(tempfile.mkdtemp(prefix="thumbtune-"))


def _fingerprint(compiler: str, flags: list[str]) -> str:
    """Name a build by all that it depends on."""
    parts = [source.read_bytes() for source in sorted(_FOLDER.glob("*.[ch]"))]
    parts += [compiler.encode(), " ".join(flags).encode(), _processor().encode()]
    parts.append(str(Path(compiler).stat().st_size).encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]


def _processor() -> str:
    """Describe the instructions this processor has."""
    return told("flags", "Features") or f"{platform.machine()} {platform.processor()}"


def _build(compiler: str, flags: list[str], path: Path) -> None:
    log.info("building the decoder for this processor (some seconds, once)")
    source = _FOLDER / "decoder.c"
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        done = subprocess.run(
            [compiler, *flags, "-o", str(part), str(source)],
            capture_output=True,
            text=True,
            timeout=_BUILD_S,
            check=False,
        )
        if done.returncode:
            raise NotAvailable(f"{compiler} failed: {(done.stderr.strip() or '?').splitlines()[0]}")
        part.replace(path)
    except subprocess.TimeoutExpired:
        raise NotAvailable(f"{compiler} took longer than {_BUILD_S} s") from None
    finally:
        part.unlink(missing_ok=True)


def _typed(library: ctypes.CDLL) -> ctypes.CDLL:
    model = POINTER(Model)
    library.forward.argtypes = (model, POINTER(Pass))
    library.copy_row.argtypes = (model, c_int, c_int, c_int)
    library.clear_row.argtypes = (model, c_int, c_int)
    library.trim_row.argtypes = (model, c_int, c_int)
    library.trim_row.restype = None
    library.set_threads.argtypes = (c_int,)
    library.lend_cores.argtypes = (c_int,)
    library.lend_cores.restype = None
    library.draw_rows.argtypes = (c_void_p, c_long, c_int, c_int, POINTER(Draw))
    library.draw_rows.restype = None
    library.pack_bytes.argtypes = (
        c_void_p, c_void_p, c_void_p, c_int, c_int, c_int, c_int,
    )  # fmt: skip
    library.pack_bytes.restype = None
    library.pack.argtypes = (c_void_p, c_void_p, c_int, c_int, c_int, c_int, c_int)
    return library
