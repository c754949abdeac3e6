"""What can go wrong at a vLLM server, each switched on by a test."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass
class Options:
    """How the server was started."""

    api_key: str = ""
    served_name: str = "tiny-base"
    root: str = ""
    max_model_len: int = 512
    runtime_loras: bool = True
    enable_lora: bool = True
    max_lora_rank: int = 16
    max_cpu_loras: int = 8
    chat_template: str | None = None
    skip_name_validation: bool = False
    fingerprint: str = "vllm-0.33.0-1a2b3c4d"


@dataclass
class Faults:
    """What goes wrong from now on. A number counts down to nothing."""

    full: int = 0
    """So many completions are told that the queue is full."""
    cut_after: int | None = None
    """The next stream's connection is cut after so many pieces of text."""
    error_after: int | None = None
    """The next stream ends in an error after so many pieces."""
    abort_after: int | None = None
    """The next stream is given up by the engine after so many pieces."""
    text: str = ""
    """What the next stream says instead of the model's own words."""
    deaf: bool = False
    """Adapters are loaded and listed, and change nothing."""
    dead: bool = False
    """The engine has died, its front end not yet."""
    going: asyncio.Event = field(default_factory=asyncio.Event)
    """While it is not set, no piece of text leaves."""

    def __post_init__(self) -> None:
        self.going.set()
