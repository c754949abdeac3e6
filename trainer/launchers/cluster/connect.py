"""Connect to a Ray cluster, with a plain sentence for each way that can fail.

The very code that runs here goes along: this version of core/ and trainer/, without which a node
could not know what is meant. Nothing of Ray is printed.
"""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import Any

import ray

from core.errors import TrainingError
from trainer.launchers.cluster.order import NAMESPACE, Away, Order

_PROBE_S = 10.0
_CLIENT = "ray://"
_CODE = Path(__file__).resolve().parents[3]


def connect(address: str) -> None:
    """Join the cluster at `address` as a driver or, with `ray://`, as a client of it."""
    _probe(address)
    code = {"py_modules": [str(_CODE / name) for name in ("core", "trainer")]}
    try:
        ray.init(
            address=address,
            namespace=NAMESPACE,
            runtime_env={**code, "excludes": ["__pycache__/"]},
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (Exception, SystemExit) as error:  # Ray ends the process where nobody answers
        raise translated(address, str(error)) from error


def _probe(address: str) -> None:
    """Fail at once where nobody listens: Ray itself tries for two minutes."""
    host, _, port = address.removeprefix(_CLIENT).rpartition(":")
    if not port.isdigit():
        if address == "auto":
            return
        raise TrainingError(
            f"launcher.ray_address {address!r}: expected a host and a port, such as "
            '"head-node:6379", or "ray://head-node:10001" from outside the cluster'
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PROBE_S).close()
    except OSError as error:
        raise Away(
            f"no Ray cluster answers at {address} ({error}); start one there with: "
            "ray start --head, or correct launcher.ray_address"
        ) from error


def translated(address: str, error: str) -> TrainingError:
    """Return an error in plain words for what Ray said about an address."""
    if "ersion mismatch" in error or "was started with" in error:
        told = " ".join(error.split())
        return TrainingError(
            f"the cluster at {address} runs another version: {told}; install the same on both"
        )
    if not address.startswith(_CLIENT) and ("raylet" in error.lower() or "node" in error.lower()):
        return TrainingError(
            f"this machine is no node of the cluster at {address} ({error}); "
            'from outside a cluster write "ray://head-node:10001" in launcher.ray_address'
        )
    if "timeout" in error:  # what a client hears that a cluster does not let in
        error += "; if it asks for a token, set RAY_AUTH_MODE=token on this side (docs/ray.md)"
    return Away(f"the cluster at {address} cannot be used: {error}")


def check_capacity(order: Order) -> None:
    """Raise TrainingError unless some node is big enough, busy or not; say what there is."""
    nodes = [_Capacity(node) for node in ray.nodes() if node["Alive"]]
    if not any(node.holds(order) for node in nodes):
        there = "; ".join(node.told() for node in nodes)
        raise TrainingError(
            f"no node of the cluster at {order.address} has {order.asked()}; it has {there}; "
            "lower launcher.ray_gpus, launcher.threads or launcher.ray_memory_gb, or add a node"
        )


class _Capacity:
    """What one node has in all."""

    def __init__(self, node: dict[str, Any]) -> None:
        self._address = node["NodeManagerAddress"]
        has = node["Resources"]
        self._gpus, self._cpus = has.get("GPU", 0.0), has.get("CPU", 0.0)
        self._memory_bytes = has.get("memory", 0.0)

    def holds(self, order: Order) -> bool:
        """Say whether the run would fit if nothing else ran there."""
        return bool(
            self._gpus >= order.gpus
            and self._cpus >= order.cpus
            and self._memory_bytes >= order.memory_bytes
        )

    def told(self) -> str:
        """Say what it has."""
        return (
            f"{self._address}: {self._gpus:g} GPU, {self._cpus:g} CPU cores, "
            f"{self._memory_bytes / 1e9:.1f} GB of memory"
        )


def head_node() -> str:
    """Return the id of the head node, which the cluster lives as long as."""
    for node in ray.nodes():
        if node["Alive"] and "node:__internal_head__" in node["Resources"]:
            return str(node["NodeID"])
    raise TrainingError("the cluster has no head node that is alive; look at: ray status")
