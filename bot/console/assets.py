"""The files that a browser may fetch besides the pages: a fixed list, in memory, and nothing else.

Invariant: a name is looked up in a table, never joined to a path, so no request reaches the disk.
htmx is served from the package that carries it; importing that package would need Django.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from core.errors import ConfigError

_OWN = Path(__file__).parent / "static"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_OWN_NAMES = ("console.css", "console.js", "keys.js", "icon.svg")
_HTMX_NAMES = {"htmx.js": "htmx-2.min.js", "htmx-sse.js": "ext/hx-sse-2.min.js"}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file's bytes, its type, and the version that its address carries."""

    body: bytes
    media_type: str
    version: str


def load_assets() -> dict[str, Asset]:
    """Read every file there is to serve, by name. Raises ConfigError where htmx is missing."""
    home = _htmx_home()
    paths = {name: _OWN / name for name in _OWN_NAMES}
    paths |= {name: home / path for name, path in _HTMX_NAMES.items()}
    try:
        return {name: _read(path) for name, path in paths.items()}
    except OSError as error:
        raise ConfigError([f"the web console lacks {error.filename}; {_INSTALL}"]) from error


_INSTALL = "install what carries it: pip install --no-deps django-htmx==1.29.0"


def _htmx_home() -> Path:
    spec = find_spec("django_htmx")
    if spec is None or spec.origin is None:
        raise ConfigError([f"the web console needs htmx, and it is not here; {_INSTALL}"])
    return Path(spec.origin).parent / "static" / "django_htmx"


def _read(path: Path) -> Asset:
    body = path.read_bytes()
    return Asset(body, _TYPES[path.suffix], hashlib.sha256(body).hexdigest()[:16])
