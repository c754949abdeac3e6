"""What a request for a reply is and what comes back: the engine's vocabulary.

Pure data, so that the bot can speak to an engine in this process or in another without importing
torch.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "cancelled", "deadline", "error"]

BASE = "base"
"""The adapter name that means: the base model alone."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat as the model's chat template takes it."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn.

    `temperature` 0 means greedy. `top_p` in (0, 1], `top_k` 0 means off. `seed` None lets the
    engine draw one; the result says which. `stop` are strings that end the reply and are not part
    of it.
    """

    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 0
    max_tokens: int = 192
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One reply to be written. `adapter` is `base` or an immutable name such as `console@v3`."""

    messages: tuple[Message, ...]
    adapter: str = BASE
    sampling: Sampling = field(default_factory=Sampling)
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """A finished reply. Times are seconds from submission; `first_token_s` is None if none was
    drawn. `token_ids` are as many as were drawn, each -1 where another machine drew them.
    """

    text: str
    token_ids: tuple[int, ...]
    adapter: str
    finish_reason: FinishReason
    seed: int
    prompt_tokens: int
    dropped_messages: int
    first_token_s: float | None
    total_s: float


class GenerationStream(Protocol):
    """A reply being written: iterate over text pieces, then read `result`."""

    def __aiter__(self) -> AsyncIterator[str]:
        """Yield pieces of text whose concatenation is the reply's text."""
        ...

    def cancel(self) -> None:
        """Stop soon; the result then has the finish reason `cancelled`. Idempotent."""
        ...

    def ahead(self) -> int:
        """Return how many replies are to begin before this one; 0 once it is its turn."""
        ...

    async def result(self) -> GenerationResult:
        """Wait for the end; raises EngineStopped if the engine died first."""
        ...


@dataclass(frozen=True, slots=True)
class EngineStats:
    """The engine at a moment: requests, resident adapters, tokens and replies since start."""

    active: int
    waiting: int
    adapters: tuple[str, ...]
    tokens_total: int
    replies_total: int


class Engine(Protocol):
    """A thing that writes replies with the base model and any resident adapter.

    All methods are called from the event loop; none blocks it.
    """

    async def start(self) -> None:
        """Load the base model; returns once replies can be written. Raises ModelError."""
        ...

    async def close(self) -> None:
        """Cancel what runs, end the model thread. Idempotent."""
        ...

    def generate(self, request: GenerationRequest) -> GenerationStream:
        """Queue a reply. Raises EngineBusy, UnknownAdapter or EngineStopped at once."""
        ...

    async def load(self, name: str, directory: Path) -> None:
        """Validate and make an adapter resident. Idempotent for the same content; AdapterRefused
        else. Raises AdaptersFull while every place is in use.
        """
        ...

    async def unload(self, name: str) -> None:
        """Take an adapter out once its last running reply has ended; new requests are refused at
        once.
        """
        ...

    async def warm(self, name: str) -> None:
        """Run one throw-away step with the adapter, so the first real reply pays nothing."""
        ...

    async def set_threads(self, threads: int) -> None:
        """Give the model thread this many CPU threads from the next step on."""
        ...

    @property
    def shares_cores(self) -> bool:
        """Whether its threads go on well where something of lower priority wants the same cores."""
        ...

    def stats(self) -> EngineStats:
        """Read the counters."""
        ...
