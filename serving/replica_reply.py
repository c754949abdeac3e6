"""One reply that a replica writes, as it grows on the bot's side. Knows no Ray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from core.errors import EngineBusy, EngineStopped, InvalidInput, UnknownAdapter
from core.generation import FinishReason, GenerationRequest, GenerationResult
from serving.wire import Answer, Piece, Refusal

_UNKNOWN_TOKEN = -1
"""Which tokens were drawn is known with the result; of a reply cut short only how many."""


class ReplicaLost(EngineStopped):
    """The replica that was asked cannot go on; another one may."""


class VersionMissing(UnknownAdapter):
    """The replica that was asked has not got the version, and did not get it."""


@dataclass(slots=True, eq=False)
class ReplicaReply:
    """A reply's text so far, and its result once the replica has sent it."""

    request: GenerationRequest
    seed: int
    clock: Callable[[], float]
    text: str = ""
    drawn: int = 0
    first_s: float | None = None
    result: GenerationResult | None = None
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock()

    def take(self, answer: Answer) -> str:
        """Take what the replica sent; return the text it brought. Raises what a refusal means."""
        if isinstance(answer, Refusal):
            raise _error(answer)
        if isinstance(answer, Piece):
            self.drawn = answer.drawn
            if self.first_s is None:
                self.first_s = self.clock() - self.started
            self.text += answer.text
            return answer.text
        self.result = answer
        return answer.text[len(self.text) :]

    def whole(self) -> GenerationResult:
        """Return the reply as the replica ended it, with times as they were here."""
        if self.result is None:
            raise ReplicaLost("its stream ended early")
        if self.result.finish_reason == "cancelled":
            raise EngineStopped("the replica ended the reply; ask again")
        return replace(self.result, first_token_s=self.first_s, total_s=self.clock() - self.started)

    def cut(self, reason: FinishReason) -> GenerationResult:
        """Return the reply as it is, ended here."""
        return GenerationResult(
            text=self.text,
            token_ids=(_UNKNOWN_TOKEN,) * self.drawn,
            adapter=self.request.adapter,
            finish_reason=reason,
            seed=self.seed,
            prompt_tokens=0,
            dropped_messages=0,
            first_token_s=self.first_s,
            total_s=self.clock() - self.started,
        )

    @property
    def tokens(self) -> int:
        """How many tokens were drawn."""
        return len(self.result.token_ids) if self.result else self.drawn


def _error(refusal: Refusal) -> EngineBusy | EngineStopped | InvalidInput | UnknownAdapter:
    if refusal.word == "missing":
        return VersionMissing(refusal.said)
    if refusal.word == "invalid":
        return InvalidInput(refusal.said)
    return EngineBusy(1, 1) if refusal.word == "busy" else ReplicaLost(refusal.said)
