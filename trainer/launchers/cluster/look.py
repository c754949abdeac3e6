"""`python -m trainer.launchers.cluster.look ORDER`: what a cluster has, in a process of its own.

Ray may end the process that asks an address where nobody answers.
"""

from __future__ import annotations

import sys

import ray

from core.errors import ThumbtuneError
from trainer.launchers.cluster.connect import check_capacity, connect
from trainer.launchers.cluster.order import Order


def main(order: Order) -> int:
    """Print one line, of what is there or of what is wrong; return 0 only if a run would fit."""
    try:
        connect(order.address)
        check_capacity(order)
        there = ray.cluster_resources()
        nodes = sum(node["Alive"] for node in ray.nodes())
    except ThumbtuneError as error:
        print(error, flush=True)
        return 1
    print(
        f"{order.address}: {nodes} node{'s' * (nodes > 1)}, {there.get('GPU', 0):g} GPU and "
        f"{there.get('CPU', 0):g} CPU cores in all; a run asks for {order.asked()}",
        flush=True,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(Order.model_validate_json(sys.argv[1])))
