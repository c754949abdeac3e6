"""A real Ray cluster on this machine for the tests, in a process of its own.

`python -m tests.trainer.ray_cluster` starts a head without GPUs, then obeys one JSON command a line
and answers each with one. Everything it makes lies in TMPDIR, and it ends with its standard input.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
STORE_BYTES = 80 << 20


@dataclass
class RayCluster:
    """The tests' side of the process."""

    process: subprocess.Popen[str]
    home: Path
    address: str = ""
    client: str = ""

    def ask(self, command: str, **more: Any) -> Any:
        """Give a command and return its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps({"command": command, **more}), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, (self.home / "errors").read_text(encoding="utf-8", errors="replace")[-4000:]
        return json.loads(answer)

    @property
    def leftovers(self) -> list[str]:
        """What lies of runs on the nodes."""
        found = [
            path
            for kind in ("runs", "work")
            for path in self.home.glob(f"*/thumbtune-ray-{os.getuid()}/{kind}/*")
        ]
        return sorted(path.name for path in found)

    @property
    def kept(self) -> bool:
        """Say whether a checkpoint has been brought to the head node."""
        return any(self.home.glob("head/thumbtune-ray-*/runs/*/kept/**/seal.json"))


@contextlib.contextmanager
def running_cluster() -> Iterator[RayCluster]:
    """A cluster of a head without GPUs and two nodes with one each (they are only counted)."""
    home = Path(tempfile.mkdtemp(prefix="tt-run-", dir="/tmp"))  # sockets need a short path
    environment = {
        **os.environ,
        "TMPDIR": str(home),
        "PYTHONPATH": str(ROOT),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.trainer.ray_cluster"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(home / "errors").open("wb"),
        text=True,
        env=environment,
        start_new_session=True,
    )
    cluster = RayCluster(process, home)
    try:
        where = cluster.ask("address")
        cluster.address, cluster.client = where["address"], where["client"]
        yield cluster
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)
        shutil.rmtree(home, ignore_errors=True)


class _Nodes:
    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._client_port = _free_port()
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 2,
                "include_dashboard": False,
                "object_store_memory": STORE_BYTES,
                "ray_client_server_port": self._client_port,
                "env_vars": _own_directory("head"),
            },
        )
        import ray

        ray.init(address=self._cluster.address, log_to_driver=False, logging_level="ERROR")
        self._nodes: dict[str, Any] = {}
        self._added = 0
        self.add()
        self.add()

    def add(self) -> str:
        """Add a node with a GPU; return its id."""
        self._added += 1
        node = self._cluster.add_node(
            wait=False,  # it would give up after half a minute, which a busy machine may take
            num_cpus=2,
            num_gpus=1,
            object_store_memory=STORE_BYTES,
            include_dashboard=False,
            env_vars=_own_directory(f"node-{self._added}"),
        )
        self._cluster.wait_for_nodes(120)
        self._nodes[node.node_id] = node
        return str(node.node_id)

    def remove(self, node: str) -> int:
        """Kill a node; return how many there are."""
        self._cluster.remove_node(self._nodes.pop(node), allow_graceful=False)
        return len(self._nodes)

    def address(self) -> dict[str, str]:
        """Return where a driver and a client connect."""
        host = self._cluster.address.rpartition(":")[0]
        return {
            "address": self._cluster.address,
            "client": f"ray://{host}:{self._client_port}",
        }

    def free(self) -> dict[str, float]:
        """Return the CPU cores and GPUs nobody holds."""
        import ray

        there = ray.available_resources()
        return {name: there.get(name, 0.0) for name in ("CPU", "GPU")}

    def actors(self) -> list[dict[str, Any]]:
        """Return the living actors: class, node, process."""
        from ray._private.state import actors  # the public way needs the dashboard

        return [
            {
                "class": found["ActorClassName"],
                "node": found["Address"]["NodeID"],
                "pid": found["Pid"],
            }
            for found in actors().values()
            if found["State"] == "ALIVE"
        ]

    def close(self) -> None:
        import ray

        ray.shutdown()
        self._cluster.shutdown()


def _own_directory(name: str) -> dict[str, str]:
    """Give a node a temporary directory of its own, as machines have."""
    path = Path(tempfile.gettempdir()) / name
    path.mkdir()
    return {"TMPDIR": str(path)}


def _free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def main() -> None:
    """Obey until standard input ends."""
    line = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    nodes = _Nodes()
    try:
        for text in sys.stdin:
            asked = json.loads(text)
            answer = getattr(nodes, asked.pop("command"))(**asked)
            print(json.dumps(answer), file=line, flush=True)
    finally:
        nodes.close()


if __name__ == "__main__":
    main()
