"""One reply from request to result, as the model thread sees it: tokens in, text and an end out.

Knows no model and no event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from core.generation import FinishReason, GenerationRequest, GenerationResult
from serving.detokenize import Detokenizer, StopFilter
from serving.lora import LoadedAdapter
from serving.prompt import Prompt


@dataclass(slots=True, eq=False)
class Job:
    """An accepted request. `cancelled` is set by the event loop, everything else is fixed.

    Times are the engine's clock in seconds. An `internal` job (a warm-up) goes first and is not
    counted.
    """

    request: GenerationRequest
    adapter: LoadedAdapter | None
    seed: int
    submitted: float
    deadline: float
    internal: bool = False
    cancelled: bool = False


@dataclass(slots=True, eq=False)
class Progress:
    """What came out of one step for one job: some text, and the result if it was the last."""

    job: Job
    piece: str
    result: GenerationResult | None = None


@dataclass(slots=True, eq=False)
class Reply:
    """A job whose prompt is known. `ended` says why it is over, None while it goes on."""

    job: Job
    prompt: Prompt
    decode: Callable[[Sequence[int]], str]
    end_tokens: Collection[int]
    max_tokens: int
    ended: FinishReason | None = None
    tokens: list[int] = field(default_factory=list)
    first_token: float | None = None
    _pieces: list[str] = field(default_factory=list)
    _detokenizer: Detokenizer = field(init=False)
    _stops: StopFilter = field(init=False)

    def __post_init__(self) -> None:
        self._detokenizer = Detokenizer(self.decode)
        self._stops = StopFilter(self.job.request.sampling.stop)

    def take(self, token: int, now: float) -> str:
        """Take a drawn token; return the text to stream, and set `ended` if it was the last.

        The model's own end token is no part of the reply; one that completes a stop string is.
        """
        if self.first_token is None:
            self.first_token = now
        if token in self.end_tokens:
            return self.end("stop")
        self.tokens.append(token)
        piece = self._stops.push(self._detokenizer.push(token))
        self._pieces.append(piece)
        if self._stops.stopped:
            self.ended = "stop"
        elif len(self.tokens) >= self.max_tokens:
            piece += self.end("length")
        return piece

    def end(self, reason: FinishReason) -> str:
        """End the reply; return the text that was still withheld."""
        self.ended = reason
        piece = self._stops.push(self._detokenizer.flush()) + self._stops.flush()
        if self._stops.stopped:
            self.ended = "stop"
        self._pieces.append(piece)
        return piece

    def result(self, now: float) -> GenerationResult:
        """Return the finished reply; `ended` must be set."""
        start = self.job.submitted
        return GenerationResult(
            text="".join(self._pieces),
            token_ids=tuple(self.tokens),
            adapter=self.job.request.adapter,
            finish_reason=self.ended or "error",
            seed=self.job.seed,
            prompt_tokens=len(self.prompt.token_ids),
            dropped_messages=self.prompt.dropped_messages,
            first_token_s=None if self.first_token is None else self.first_token - start,
            total_s=now - start,
        )


def unstarted_result(job: Job, reason: FinishReason, now: float) -> GenerationResult:
    """Return the result of a job that ended before its prompt was read."""
    return GenerationResult(
        text="",
        token_ids=(),
        adapter=job.request.adapter,
        finish_reason=reason,
        seed=job.seed,
        prompt_tokens=0,
        dropped_messages=0,
        first_token_s=None,
        total_s=now - job.submitted,
    )
