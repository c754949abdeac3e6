"""sqlite-utils, taken in without numpy and pandas.

It imports both wherever they are installed, for values that no table here holds, and a bot that
needs neither would pay with half a second and 80 MiB. Everything of sqlite-utils is imported here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _unseen(*names: str) -> Iterator[None]:
    """Let imports of these fail while open; what is loaded already stays loaded."""
    loaded = {name: sys.modules[name] for name in names if name in sys.modules}
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type] # None: importing it fails
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
        sys.modules.update(loaded)


with _unseen("numpy", "pandas"):
    import sqlite_utils
    from sqlite_utils.migrations import Migrations

__all__ = ["Migrations", "sqlite_utils"]
