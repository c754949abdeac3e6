"""A stand-in for `vllm serve --enable-lora`, on loopback: its endpoints as version 0.33.0 has them.

Bodies, statuses and errors were read in vLLM's source; the replies are written by the project's own
engine on the tiny base, with whatever adapters were loaded, so that versions can be told apart.
"""

from tests.vllm_double.server import VllmDouble

__all__ = ["VllmDouble"]
