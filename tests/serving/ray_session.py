"""A Ray of the tests' own: small, without a dashboard, gone with its directory at the end."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TRIES = 4
CORES = 4
"""How many Ray believes there are: it counts, it binds nobody."""


@contextmanager
def ray_session() -> Iterator[str]:
    """Begin a Ray in this process and yield its address; skip where it is not installed."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'thumbtune[ray]'")
    serve = pytest.importorskip("ray.serve", reason="Ray Serve is not installed: ray[serve]")
    place = tempfile.mkdtemp(prefix="tt-ray-")  # a socket's path has 107 characters at most
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        try:
            _begin(ray, place)
            yield ray.get_runtime_context().gcs_address
        finally:
            serve.shutdown()
            ray.shutdown()
            shutil.rmtree(place, ignore_errors=True)


def _begin(ray: Any, place: str) -> None:
    """Begin it, again where a busy machine took longer than the half minute Ray gives itself."""
    options = {
        "address": "local",
        "num_cpus": CORES,
        "include_dashboard": False,
        "object_store_memory": 80 * 2**20,
        "log_to_driver": False,
        "configure_logging": False,
        "_temp_dir": place,
    }
    for _ in range(TRIES - 1):
        with contextlib.suppress(Exception):  # a plain one is what Ray raises then
            ray.init(**options)
            return
        ray.shutdown()
    ray.init(**options)
